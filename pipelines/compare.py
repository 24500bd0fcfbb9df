"""`python -m pipelines.compare compare.runs=[a,b]`: paired tests between runs, and what they allow to say."""

import hashlib
import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
from hydra.core.hydra_config import HydraConfig

from pipelines.compare_sources import Source, check_same_data, column_options, joined_cost, read_source
from pipelines.config import Run
from pipelines.entry import given_overrides, stage_main
from pipelines.stage import StageKey, stage
from recsys.core.errors import ConfigError
from recsys.core.names import WEIGHT
from recsys.evaluate.compare import check_possible, compare, methods_of, slice_column
from recsys.evaluate.compare_config import CompareConfig
from recsys.evaluate.compare_page import JSON_FILE, MARKDOWN_FILE, PAGE_FILE, write_comparison
from recsys.evaluate.compare_rows import PREDICTION
from recsys.evaluate.compared import Comparison
from recsys.metrics import GroupWeight

logger = logging.getLogger(__name__)

SLICING = ("num_buckets", "max_slice_values", "min_slice_rows")
"""Keys of `evaluate` that hold here too."""

OWN_KEYS = ("compare", "name", "runs", "overwrite", "hydra", *(f"evaluate.{key}" for key in SLICING))
LONGEST_NAME = 120
ROW_COLUMNS = ("__row__", "label", "logit", "prediction")


def work(run: Run) -> None:
    """Compare evaluated runs; `compare.html`, `compare.json` and `compare.md` are in `runs/compare/<name>`.

    Raises:
        ConfigError: fewer than two runs, or an option of another command was given.
        StageError: a run was not evaluated, or on other data, or evaluated before it was trained again.
        DataError: the runs did not score the same rows.
    """
    check_given()
    config = run.config.compare
    if len(config.runs) < 2:
        raise ConfigError(
            f"compare.runs={config.runs}: a comparison needs two runs. Name evaluated runs, folders below "
            f"{run.config.runs}/, the baseline first: compare.runs=[first,second]."
        )
    sources = [read_source(Path(run.config.runs), name, config.label) for name in config.runs]
    notes = check_same_data(Path(run.config.runs), sources, across_ingests=config.across_ingests)
    notes += seed_notes(config.runs, group_seeds=config.group_seeds)
    config = replace(config, **column_options(sources, config))
    columns = pl.Schema(pl.read_parquet_schema(sources[0].predictions))
    check_possible(config.runs, columns, config)
    notes += weight_notes(columns)
    key = StageKey(
        stage="compare",
        config={**run.part("compare"), "slicing": {key: run.values["evaluate"][key] for key in SLICING}},
        inputs={name: digest for source in sources for name, digest in source.inputs().items()},
        resolved=run.values,
    )
    folder = Path(run.config.runs) / "compare" / _name(run)
    with stage(folder, key, overwrite=run.config.overwrite) as aside:
        if aside is not None:
            found = _compared(run, config, sources)
            facts = _facts(config, sources, numbers=PREDICTION in columns)
            write_comparison(replace(found, notes=tuple(notes)), aside, facts)
    for name, said in json.loads((folder / JSON_FILE).read_text())["verdicts"].items():
        print("\n  ".join([f"{name}:", *said]))
    print(f"{folder}: {PAGE_FILE}, {MARKDOWN_FILE}, {JSON_FILE}")


def weight_notes(columns: pl.Schema) -> list[str]:
    """What a reader must know of predictions with these columns."""
    if WEIGHT not in columns:
        return []
    return ["Rows have weights, which training and evaluation count them by. Here all count alike: paired errors need "
            "to know how many rows were seen."]  # fmt: skip


def check_given() -> None:
    """Refuse options of the command line that would be ignored: runs are compared as they were trained and evaluated.

    Raises:
        ConfigError: naming it.
    """
    for text in given_overrides():
        key = re.split("[=@]", text.lstrip("+~"))[0].replace("/", ".")
        if not any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS):
            raise ConfigError(
                f"{text}: runs are compared as they were trained and evaluated, so this would change nothing. Leave it "
                f"out; this command's own are {[own for own in OWN_KEYS if own != 'hydra']}."
            )


def seed_notes(runs: list[str], *, group_seeds: bool) -> list[str]:
    """A reminder that runs of one method are compared as if they were methods; empty where none are."""
    together = [" and ".join(method.runs) for method in methods_of(runs, group_seeds=True) if len(method.runs) > 1]
    if group_seeds or not together:
        return []
    return [
        f"Runs that differ in their seed alone are compared as if they were methods: {'; '.join(together)}. "
        "compare.group_seeds=true makes one method of them, and of their spread a part of its error."
    ]


def _name(run: Run) -> str:
    """As given; else made of the names of the runs."""
    if not HydraConfig.initialized() or any(text.startswith("name=") for text in given_overrides()):
        return run.config.name
    names = run.config.compare.runs
    joined = "_vs_".join(name.replace("/", "-") for name in names)
    if len(joined) <= LONGEST_NAME:
        return joined
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{names[0].replace('/', '-')[: LONGEST_NAME - 30]}_vs_{len(names) - 1}_others_{digest}"


def _compared(run: Run, config: CompareConfig, sources: list[Source]) -> Comparison:
    columns = {config.group_key, *(slice_column(name) for name in config.slices or [])}
    predictions = {}
    for number, source in enumerate(sources):
        wanted = {*ROW_COLUMNS, *columns} if number == 0 else {*ROW_COLUMNS}
        present = [name for name in pl.read_parquet_schema(source.predictions) if name in wanted]
        predictions[source.name] = pl.read_parquet(source.predictions, columns=present)
    found = compare(predictions, config, run.config.evaluate)
    by_name = {source.name: source for source in sources}
    costs = [
        joined_cost(method.name, [by_name[name].cost(measure_latency=config.measure_latency) for name in method.runs])
        for method in found.methods
    ]
    return replace(found, costs=tuple(costs))


def _facts(config: CompareConfig, sources: list[Source], *, numbers: bool) -> dict[str, str]:
    """What a reader must know of the runs."""
    dataset = sources[0].record["resolved"]["dataset"]
    kind = str(dataset["_target_"]).rpartition(".")[2].removesuffix("Dataset")
    return {
        "dataset": str(dataset.get("name") or kind),
        "baseline": sources[0].name,
        "candidates": ", ".join(source.name for source in sources[1:]),
        "rows depend within": config.group_key or "no group: all are independent",
        "slices": ", ".join(config.slices or []) or "none",
        "bootstrap": f"{config.num_replicates} replicates, seed {config.seed}",
        **({} if numbers else {"GAUC weights": (config.gauc_weight or GroupWeight.IMPRESSIONS).value}),
        "seeds": "one method for all seeds" if config.group_seeds else "every run for itself",
        "commits": ", ".join(sorted({str(source.record.get("commit", "")) for source in sources})),
        "written": time.strftime("%Y-%m-%d"),
    }


main = stage_main(work)

if __name__ == "__main__":
    main()
