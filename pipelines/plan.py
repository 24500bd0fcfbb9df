"""`python -m pipelines.plan`: what fits a budget and why, by feature, by method and by rank, before any training."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from torch import nn

from pipelines import ingest
from pipelines.config import Run, RunConfig
from pipelines.entry import CONFIG_FOLDER, stage_main
from pipelines.model import asked_features, build_model, plan_tables
from pipelines.plan_tables import show
from pipelines.stage import StageKey, fingerprint, stage
from recsys.core.errors import ConfigError
from recsys.core.jsonable import build_config, from_json, to_json, with_target
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.data.fingerprint import file_fingerprint
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.method import MethodConfig, full_bytes
from recsys.embeddings.planned import write_plan
from recsys.embeddings.survey import FeatureSurvey, MethodSurvey, survey_features, survey_method
from recsys.retrieval.encoder import Encoder
from recsys.retrieval.node_model import NodeModel
from recsys.train.forecast import RankForecast, TableForecast, forecast

logger = logging.getLogger(__name__)

METHODS = Path(CONFIG_FOLDER) / "embedding"
AUTO = "auto"
"""The method that plans where the one asked for has no choice."""

CHOSEN_IDS, SURVEYED_IDS = 2**22, 2**16
"""Ids of a feature that are enumerated to count collisions: under the plan chosen, and under every method."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What `survey.json` holds, of a plan that was chosen. `features`, `ranks` and `tables` are those of it."""

    dataset: str
    budget_bytes: int
    uncompressed_bytes: int
    chosen: str  # method of the plan
    refusal: str  # why the method asked for has no plan; empty when it has
    features: tuple[FeatureSurvey, ...] = ()
    methods: tuple[MethodSurvey, ...] = ()
    ranks: tuple[RankForecast, ...] = ()
    tables: tuple[TableForecast, ...] = ()
    ranks_refusal: str = ""  # why the tables cannot be laid over the ranks


def work(run: Run) -> None:
    """Plan, survey all methods at the same budget, print both; the stage's folder holds them, for `embedding=plan` too.

    Raises:
        ConfigError: the method asked for cannot plan these features within the budget; the survey is printed before,
            and nothing is written.
    """
    ingest.work(run)
    data = run.stage("ingest")
    files = [*run.config.embedding.files(), *sorted(METHODS.glob("*.yaml"))]
    inputs = {"ingest": fingerprint(data), **{str(path): file_fingerprint(path) for path in files}}
    config = run.part(run.kind, "embedding", "plan", "seed") | {"train": run.values["train"]}  # with its ranks
    key = StageKey(stage="plan", config=config, inputs=inputs, resolved=run.values)
    folder = run.stage("plan")
    with stage(folder, key, overwrite=True) as aside:  # made in seconds, so nothing of value is lost
        if aside is not None:
            survey, plan, method = make(run.config, run.values["embedding"], Manifest.read(data))
            if plan is None:
                show(survey)
                raise ConfigError(f"embedding: {survey.refusal} {_way_out(survey)}")
            (aside / "survey.json").write_text(json.dumps(to_json(survey), indent=1))
            write_plan(aside, plan, method)
    survey = from_json(Survey, json.loads((folder / "survey.json").read_text()))
    show(survey)
    also = f" and embedding={survey.chosen}" if survey.refusal else ""
    print(f"{folder}: plan.json, survey.json. To train it: `python -m pipelines.run` with the same arguments{also}.")


def make(
    config: RunConfig, embedding: dict[str, Any], manifest: Manifest
) -> tuple[Survey, TablePlan | None, dict[str, Any]]:
    """Survey a data set under a configuration.

    Args:
        config: of the run.
        embedding: the plain values of `config.embedding`.
        manifest: of the data set.

    Returns:
        The survey, the plan chosen (None if it is refused), and the plain values of the method that made it.
    """
    features = asked_features(config, manifest)
    oov_counts = {name: known.oov_count for name, known in manifest.categorical.items()}
    methods = dict(_methods(embedding, features))
    survey = Survey(
        dataset=manifest.dataset,
        budget_bytes=config.embedding.budget_bytes(features),
        uncompressed_bytes=full_bytes(features),
        chosen=next(name for name, method in methods.items() if method == config.embedding),
        refusal="",
        methods=tuple(_surveyed(methods, features, oov_counts)),
    )
    config, survey = _choose(config, survey, methods)
    if not survey.chosen:
        return survey, None, embedding
    plan = config.embedding.plan(features)
    serving = config.embedding.serving_plan(plan)
    found = survey_features(plan, serving, max_ids=CHOSEN_IDS, oov_counts=oov_counts)
    survey = replace(survey, features=tuple(found))
    method = with_target(config.embedding) if survey.refusal else embedding
    return _forecast(config, manifest, survey), plan, method


def surveyed_bytes(run: Run, manifest: Manifest) -> dict[str, int | None]:
    """Bytes that each method serves at the run's budget; None where it refuses it."""
    features = asked_features(run.config, manifest)
    oov_counts = {name: known.oov_count for name, known in manifest.categorical.items()}
    surveyed = _surveyed(dict(_methods(run.values["embedding"], features)), features, oov_counts)
    return {method.method: method.serving_bytes for method in surveyed}


def _way_out(survey: Survey) -> str:
    """Which methods fit the budget, or which comes nearest to it."""
    if fitting := [each.method for each in survey.methods if not each.refusal]:
        return f"These fit: {', '.join(fitting)}."
    floors = {each.floor_bytes: each.method for each in survey.methods if each.floor_bytes is not None}
    return f"The lowest floor is that of {floors[min(floors)]}: {min(floors):,} bytes." if floors else ""


def _choose(
    config: RunConfig, survey: Survey, methods: dict[str, MethodConfig | ConfigError]
) -> tuple[RunConfig, Survey]:
    """The method asked for; where that is `full`, which has no choice, and does not fit: `auto`; else none."""
    refusals = {found.method: found.refusal for found in survey.methods}
    refusal = refusals[survey.chosen]
    if not refusal:
        return config, survey
    automatic = methods.get(AUTO)
    if isinstance(config.embedding, FullConfig) and isinstance(automatic, MethodConfig) and not refusals[AUTO]:
        logger.info("embedding=full does not fit the budget: %s plans instead", AUTO)
        return replace(config, embedding=automatic), replace(survey, chosen=AUTO, refusal=refusal)
    return config, replace(survey, chosen="", refusal=refusal)


def _methods(
    embedding: dict[str, Any], features: list[FeatureSpec]
) -> Iterator[tuple[str, MethodConfig | ConfigError]]:
    """Every yaml of `conf/embedding` at the run's budget and `full_below`; what the run itself asks for, as it is."""
    asked = build_config(MethodConfig, embedding, key="embedding")  # type: ignore[type-abstract]
    budget = {"budget_mib": asked.budget_bytes(features) / 2**20, "compression_ratio": None}
    common = {key: embedding[key] for key in ("budget_mib", "compression_ratio", "full_below")}
    found = False
    for path in sorted(METHODS.glob("*.yaml")):
        values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
        if embedding == {**values, **common}:
            found = True
            yield path.stem, asked
        else:
            yield path.stem, _built(values | budget, asked.full_below)
    if not found:
        yield "as configured", asked


def _built(values: dict[str, Any], full_below: int) -> MethodConfig | ConfigError:
    missing = [key for key, value in values.items() if value == "???"]
    if missing:
        return ConfigError(f"left out, because {missing} of its yaml have no default. Plan it with embedding=….")
    for attempt in ({**values, "full_below": full_below}, values):  # some methods have no use for it
        try:
            return build_config(MethodConfig, attempt, key="embedding")  # type: ignore[type-abstract]
        except ConfigError as error:
            refusal = error
    return refusal


def _surveyed(
    methods: dict[str, MethodConfig | ConfigError], features: list[FeatureSpec], oov_counts: dict[str, int]
) -> Iterator[MethodSurvey]:
    for name, method in methods.items():
        if isinstance(method, ConfigError):
            yield MethodSurvey(method=name, refusal=str(method))
        else:
            yield survey_method(name, method, features, max_ids=SURVEYED_IDS, oov_counts=oov_counts)


def _forecast(config: RunConfig, manifest: Manifest, survey: Survey) -> Survey:
    run_on = config.train.run_on
    try:
        ranks, tables = forecast(
            _on_meta(config, manifest),
            config.train.optimizer,
            run_on,
            num_ranks=config.plan.num_ranks or run_on.num_processes,
        )
    except ConfigError as error:
        return replace(survey, ranks_refusal=str(error))
    return replace(survey, ranks=tuple(ranks), tables=tuple(tables))


def _on_meta(config: RunConfig, manifest: Manifest) -> nn.Module:
    """What is sharded, its tables without memory; of users and items the tables are all there is."""
    if config.retrieval is None:
        return build_model(config, manifest, on_meta=True).model
    embeddings = PlannedEmbeddingBagCollection(plan_tables(config, manifest), torch.device("meta"))
    return NodeModel(embeddings, Encoder())


main = stage_main(work)

if __name__ == "__main__":
    main()
