"""`python -m pipelines.compress from=RUN embedding=METHOD`: a trained run compressed without training again."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.table import Table

from pipelines import evaluate, export
from pipelines.config import Run, RunConfig
from pipelines.entry import given_overrides, stage_main
from pipelines.model import plan_tables
from pipelines.predictions import other_labels
from pipelines.stage import read_record
from recsys.core.errors import ConfigError, StageError
from recsys.core.jsonable import build_config
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan

logger = logging.getLogger(__name__)

OWN_KEYS = ("from", "embedding", "budget_mib", "evaluate", "export", "name", "runs", "overwrite", "trained_by")
"""Options of this command; all others are the trained run's."""


def work(run: Run) -> None:
    """Evaluate and export the run `from` with its embeddings frozen by another method; say what that cost.

    Data set, model and training are the trained run's; `embedding`, `export`, `name` are this command's, and so is
    `evaluate` where something of it is given.

    Raises:
        ConfigError: `from` is missing, the method trains other tables than that run has, or something is given that
            is that run's and differs.
        StageError: there is no such trained run.
    """
    source = source_run(run)
    check_given(run, source)
    compressed = compressed_run(run, source)
    check_plans(compressed, source)
    for each in (source, compressed):
        evaluate.work(each)
    export.work(compressed)
    Console(highlight=False).print(comparison(source, compressed))
    print(
        f"{compressed.config.name}: {compressed.stage('evaluate')} (report.html), {compressed.stage('export')} (bundle)"
    )


def source_run(run: Run) -> Run:
    """The trained run, as its train stage recorded it."""
    if not run.config.trained_by:
        raise ConfigError("from= is missing. Name a trained run: from=bench/criteo_dcnv2_seed1 (a folder below runs/).")
    runs = Path(run.config.runs)
    if not (runs / run.config.trained_by / "train").exists():
        found = sorted(str(path.parents[1].relative_to(runs)) for path in runs.rglob("train/stage.json"))
        raise StageError(f"from={run.config.trained_by}: no such run below {runs}/. Trained are {found}.")
    record = read_record(runs / run.config.trained_by / "train")
    values: dict[str, Any] = {**record["resolved"], "runs": run.config.runs, "overwrite": False}
    return Run(build_config(RunConfig, values, key=""), values)


def check_given(run: Run, source: Run) -> None:
    """Refuse what was given on the command line and would be ignored: what is the source's, unless it is the same.

    Raises:
        ConfigError: naming it.
    """
    own = {*OWN_KEYS, "experiment", "compare"}  # `compare` is a command of its own, which trained runs know nothing of
    for text in given_overrides():
        key = _key(text)
        keys = [key] if key != "experiment" else [each for each in sorted(run.values) if each not in own]
        differs = [
            each
            for each in keys
            if each.partition(".")[0] not in own and _at(run.values, each) != _at(source.values, each)
        ]
        if differs:
            raise ConfigError(
                f"{text}: {', '.join(differs)} is the trained run's (from={source.config.name}), which has another "
                "value, and a run cannot be given one after its training. Leave it out; this command's own are "
                f"{[each for each in OWN_KEYS if each != 'trained_by']}."
            )


def _key(override: str) -> str:
    """`train.epochs` of `+train.epochs=3`, `dataset` of `dataset@…=csv`."""
    return re.split("[=@]", override.lstrip("+~"))[0].replace("/", ".")


def _at(values: Any, path: str) -> Any:
    """A value by its dotted key; None where there is none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def compressed_run(run: Run, source: Run) -> Run:
    """The source with this command's embedding; its name is the source's with the method's, where none is given."""
    taken = {key: run.values[key] for key in ("embedding", "export", "overwrite", "trained_by")}
    if any(_key(text).partition(".")[0] in ("evaluate", "experiment") for text in given_overrides()):
        taken["evaluate"] = run.values["evaluate"]
    values = {**source.values, **taken, "name": _name(run, source)}
    return Run(build_config(RunConfig, values, key=""), values)


def _name(run: Run, source: Run) -> str:
    if not HydraConfig.initialized() or any(text.startswith("name=") for text in given_overrides()):
        return run.config.name
    return f"{source.config.name}/compress/{_choice(run)}"


def _choice(run: Run) -> str:
    """The embedding and its budget, as a folder name."""
    embedding = run.config.embedding
    budget = f"_{embedding.compression_ratio:g}x" if embedding.compression_ratio is not None else ""
    budget = f"_{embedding.budget_mib:g}mib" if embedding.budget_mib is not None else budget
    return f"{HydraConfig.get().runtime.choices['embedding']}{budget}"


def check_plans(compressed: Run, source: Run) -> None:
    """Refuse a method that would have trained other tables.

    Raises:
        ConfigError: naming both plans, and what will do.
    """
    trained = TablePlan.from_json((source.stage("train") / "plan.json").read_text())
    plan = plan_tables(compressed.config, Manifest.read(compressed.stage("ingest")))
    if plan.fingerprint != trained.fingerprint:
        method = compressed.config.embedding.label
        raise ConfigError(
            f"from={source.config.name}: embedding={method} trains tables of its own ({len(plan.tables)}, "
            f"{plan.num_bytes:,} bytes), and that run has others ({len(trained.tables)}, {trained.num_bytes:,} bytes). "
            "Only methods that act after training can compress a trained run: fp16, int8, int4, int2, pq, opq, dedup, "
            "prune on one trained with embedding=full and the same `init` and `full_below`. "
            "Train this one instead: `python -m pipelines.run embedding=…`."
        )


def comparison(source: Run, compressed: Run) -> Table:
    """Trained against compressed, on the test split."""
    table = Table("", "trained", "compressed", "difference", title=f"{source.config.name} -> {compressed.config.name}")
    evaluated = source.stage("evaluate"), compressed.stage("evaluate")
    trained, served = ({"": folder, **other_labels(folder)} for folder in evaluated)
    for label, folder in served.items():
        before, after = _figures(trained[label]), _figures(folder)
        for name, title in _shown(source, before).items():
            values = before[name], after[name]
            told = [value for value in values if value is not None]  # AUC is undefined where a split has one class
            difference = f"{told[1] - told[0]:+.5f}" if len(told) == len(values) else "undefined"
            cells = ("undefined" if value is None else f"{value:.5f}" for value in values)
            table.add_row(f"{title} of {label}" if label else title, *cells, difference)
    sizes = [_serving_bytes(each) for each in (source, compressed)]
    table.add_row(
        "embedding bytes served", *(f"{size:,}" for size in sizes), f"{sizes[0] / max(sizes[1], 1):.2f}x smaller"
    )
    return table


def _shown(run: Run, figures: Mapping[str, float | None]) -> dict[str, str]:
    """The metrics that a comparison shows, with what each is called."""
    if run.config.retrieval is not None:
        k = run.config.retrieval.top_k[-1]
        return {f"recall_at_{k}": f"test recall@{k}", f"ndcg_at_{k}": f"test NDCG@{k}"}
    if "rmse" in figures:
        return {"rmse": "test RMSE", "mae": "test MAE"}
    return {"auc": "test AUC", "log_loss": "test log loss"}


def _figures(folder: Path) -> Mapping[str, float | None]:
    figures: dict[str, float | None] = json.loads((folder / "metrics.json").read_text())
    return figures


def _serving_bytes(run: Run) -> int:
    plan = plan_tables(run.config, Manifest.read(run.stage("ingest")))
    return run.config.embedding.serving_plan(plan).num_bytes


main = stage_main(work)

if __name__ == "__main__":
    main()
