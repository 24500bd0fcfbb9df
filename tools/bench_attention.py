"""Sequence models side by side at equal table budgets, and whether their attention finds the events that matter.

    python -m tools.bench_attention --data planted [--models din,dare,twin] [--seeds 1,2,3] [--out FILE] [KEY=VALUE …]

Trains and evaluates `experiment=sequence/<data>_<model>` for each seed (a run that is there already is not trained
again) and prints a table of means and standard deviations over seeds. Where rows tell which past events matter
(`planted`), it adds the AUC of the true probabilities, and of the test rows with relevant and irrelevant events

* mass: share of the attention that lies on relevant events;
* hits: share of relevant events among the r heaviest, r being how many there are;
* chance: what both are on average where attention knows nothing, the share of relevant events.

Further arguments override the configuration of every run, such as `runs=…` or `model.dropout=0`.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pipelines import evaluate, ingest, train
from pipelines.config import Run
from pipelines.entry import set_up_logging
from pipelines.model import load_trained
from pipelines.pareto_cells import compose_run
from pipelines.predictions import split_files
from recsys.core.manifest import Manifest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.planted import BAYES, RELEVANCE
from recsys.metrics import auc


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How far attention finds relevant events, each a mean over rows; see above."""

    mass: float
    hits: float
    chance: float


def recovery(weights: Tensor, relevant: Tensor, there: Tensor) -> Recovery:
    """Compare what events count with which are relevant.

    Args:
        weights: float (B, L), 0 or more.
        relevant, there: bool (B, L); an event that is not there is not relevant.
    """
    number, events = relevant.sum(1), there.sum(1)
    asked = (number > 0) & (number < events)
    weights, relevant, there = weights[asked], relevant[asked], there[asked]
    number, events = number[asked], events[asked]
    mass = (weights * relevant).sum(1) / weights.sum(1).clamp(min=1e-12)
    order = weights.masked_fill(~there, -1.0).argsort(dim=1, descending=True)
    first = torch.arange(weights.size(1)) < number.unsqueeze(1)
    hits = (relevant.gather(1, order) & first).sum(1) / number
    return Recovery(mass=float(mass.mean()), hits=float(hits.mean()), chance=float((number / events).mean()))


def planted_events(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """From texts of `0` and `1`, a digit an event: which events are relevant, and which are there; bool (B, L)."""
    longest = max(len(text) for text in texts)
    digits = "".join(text.ljust(longest) for text in texts).encode()
    characters = torch.frombuffer(bytearray(digits), dtype=torch.uint8).view(len(texts), longest)
    return characters == ord("1"), characters != ord(" ")


class Listener:
    """Keeps what the events of every batch count for a head."""

    def __init__(self, head: nn.Module) -> None:
        self.parts: list[Tensor] = []
        head.register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, arguments: tuple[Tensor, Tensor, list[Tensor], list[Tensor]]) -> None:
        _, embeddings, sequences, lengths = arguments
        self.parts.append(head.event_weights(embeddings, sequences, lengths))  # type: ignore[operator]

    def weights(self, longest: int) -> Tensor:
        """Of all rows, float32 (rows, longest)."""
        return torch.cat([nn.functional.pad(part, (0, longest - part.size(1))) for part in self.parts])


@torch.no_grad()
def recovered(run: Run) -> Recovery:
    """The recovery of a trained run on its test rows."""
    folder = run.stage("ingest")
    model = load_trained(run).model
    listener = Listener(model.head)
    options = LoaderOptions(batch_size=run.config.train.eval_batch_size, shuffle=False, drop_last=False)
    for batch in ParquetLoader(folder, evaluate.SPLIT, options).epoch(0):
        model(batch.dense, batch.sparse)
    relevant, there = planted_events(pl.concat(split_files(folder, evaluate.SPLIT, [RELEVANCE]))[RELEVANCE].to_list())
    return recovery(listener.weights(relevant.size(1)), relevant, there)


def bayes_auc(folder: Path) -> float:
    """AUC of the probabilities that the test labels were drawn from."""
    rows = pl.concat(split_files(folder, evaluate.SPLIT, ["__label__", BAYES]))
    return auc(rows["__label__"].to_torch(), rows[BAYES].to_torch()).value_or(float("nan"))


def measured(run: Run) -> dict[str, float]:
    """Train and evaluate a run; its figures by the table's headings."""
    for stage in (ingest, train, evaluate):
        stage.work(run)
    trained, tested = (json.loads((run.stage(name) / "metrics.json").read_text()) for name in ("train", "evaluate"))
    figures = {
        "AUC": tested["auc"],
        "GAUC": tested["gauc"],
        "log loss": tested["log_loss"],
        "best epoch": trained["train.best_epoch"],
        "table bytes": trained["plan.bytes"],
        "train s": trained["train.seconds"],
    }
    if RELEVANCE in Manifest.read(run.stage("ingest")).schema.passthrough:
        figures |= {"Bayes AUC": bayes_auc(run.stage("ingest")), **asdict(recovered(run))}
    return figures


def table_of(results: dict[str, list[dict[str, float]]]) -> Table:
    """A row a model: mean and, where it varies, standard deviation over seeds."""
    headings = list(next(iter(results.values()))[0])
    table = Table("model", *headings)
    for model, runs in results.items():
        table.add_row(model, *(_cell([run[heading] for run in runs]) for heading in headings))
    return table


def _cell(values: Sequence[float]) -> str:
    if max(values) == min(values):
        return f"{values[0]:,.4g}" if values[0] < 1000 else f"{values[0]:,.0f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="planted", help="planted, taobao or amazon_beauty")
    parser.add_argument("--models", default="din,dare,twin")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", type=Path, help="JSON of every run's figures")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    set_up_logging()
    results: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds.split(","):  # seed by seed, so that an interrupted table compares equally many
        for model in arguments.models.split(","):
            experiment = f"experiment=sequence/{arguments.data}_{model}"
            run = compose_run([experiment, f"seed={seed}", *arguments.overrides])
            results.setdefault(model, []).append(measured(run))
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(results, indent=1))
    Console(width=160).print(table_of(results))


if __name__ == "__main__":
    main()
