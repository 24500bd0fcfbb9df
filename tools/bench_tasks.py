"""Clicks and conversions learned together and each alone, on generated rows whose best possible AUCs are known.

    python -m tools.bench_tasks [--models shared_bottom,mmoe,ple,esmm] [--seeds 1,2,3] [--out FILE] [KEY=VALUE …]

Beside models of several tasks it trains `dnn` on clicks and `dnn` on conversions, on the same rows. A run that is there
already is not trained again. The table has test AUCs, means and standard deviations over seeds; the best epoch is
that of the best mean validation AUC of what a model learns. Further arguments override the configuration of every run.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines import evaluate, ingest, train
from pipelines.config import Run
from pipelines.entry import set_up_logging
from pipelines.pareto_cells import compose_run
from pipelines.predictions import of_label
from recsys.core.manifest import Manifest
from recsys.data.synthetic import CONVERSION

ALONE = "dnn, a model each"
GENERATED = ("experiment=bench/tasks", "dataset.conversion_rate=0.2")


def words_of_conversions(generated: Run) -> list[str]:
    """Overrides for the generated rows with conversions as the main, and only, label."""
    folder = generated.stage("ingest")
    schema = Manifest.read(folder).schema
    numeric = ",".join(f"{{name:{feature.name}}}" for feature in schema.numeric)
    categorical = ",".join(
        f"{{name:{feature.name},min_count:{feature.min_count},multi_valued:{feature.multi_valued},"
        f"max_length:{feature.max_length},pooling:{feature.pooling.value}}}"
        for feature in schema.categorical
    )
    files = ",".join(f"'{path}'" for path in sorted((folder / "raw").glob("*.parquet")))
    return [
        "experiment=bench/tasks",
        "dataset=parquet",
        f"dataset.files=[{files}]",
        f"dataset.label={CONVERSION}",
        f"dataset.numeric=[{numeric}]",
        f"dataset.categorical=[{categorical}]",
    ]


def figure(words: Sequence[str], label: str, name: str = "auc") -> float:
    """Train and evaluate a run; a test figure of one of its labels."""
    run = compose_run(words)
    for stage in (ingest, train, evaluate):
        stage.work(run)
    labels = Manifest.read(run.stage("ingest")).schema.labels
    folder = of_label(run.stage("evaluate"), labels, label)
    return float(json.loads((folder / "metrics.json").read_text())[name])


def words_together(model: str, seed: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of a run that learns clicks first."""
    return [*GENERATED, f"seed={seed}", *overrides, f"model={model}", f"name=tasks/{model}_seed{seed}"]


def aucs_of(model: str, seed: str, overrides: Sequence[str]) -> dict[str, float]:
    """Of clicks and of conversions."""
    own = [f"seed={seed}", *overrides]
    together = words_together("dnn" if model == ALONE else model, seed, overrides)
    found = {"clicks": figure(together, "label")}
    if model == ALONE:
        own = [word for word in own if not word.startswith("dataset.")]  # those are of the generator
        alone = [*words_of_conversions(compose_run(together)), *own, "model=dnn", f"name=tasks/conversions_seed{seed}"]
        return found | {"conversions": figure(alone, CONVERSION)}
    return found | {"conversions": figure(together, CONVERSION)}


def table_of(results: dict[str, list[dict[str, float]]]) -> Table:
    """A row a model."""
    table = Table("model", "clicks", "conversions")
    for model, runs in results.items():
        cells = []
        for label in ("clicks", "conversions"):
            values = [run[label] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        table.add_row(model, *cells)
    return table


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="shared_bottom,mmoe,ple,esmm")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", type=Path, help="JSON of every run's figures")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    set_up_logging()
    results: dict[str, list[dict[str, float]]] = {}
    models = arguments.models.split(",")
    for seed in arguments.seeds.split(","):  # seed by seed, so that an interrupted table compares equally many
        for model in [ALONE, *models]:
            results.setdefault(model, []).append(aucs_of(model, seed, arguments.overrides))
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(results, indent=1))
    best = words_together(models[0], arguments.seeds.split(",")[0], arguments.overrides)
    possible = {"clicks": figure(best, "label", "bayes_auc"), "conversions": figure(best, CONVERSION, "bayes_auc")}
    Console(width=100).print(table_of({**results, "best possible": [possible]}))


if __name__ == "__main__":
    main()
