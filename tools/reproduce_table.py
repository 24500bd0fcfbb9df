"""The reproduction table: means over seeds, differences to FuxiCTR's re-run, a verdict; as Markdown and as JSON."""

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from tools.reproduce_models import Row, Table

MARKDOWN_FILE, JSON_FILE = "reproduction.md", "reproduction.json"


class Side(Enum):
    """Who trained."""

    OURS = "recsys"
    PEER = "FuxiCTR"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One training, scored on test once."""

    model: str  # name of its row
    side: Side
    seed: int
    validation_auc: float
    test_auc: float
    test_log_loss: float
    num_parameters: int
    num_epochs: int
    seconds: float  # of all epochs with their validations
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """One training that did not end well."""

    model: str
    side: Side
    seed: int
    message: str
    log: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One model on one side over its seeds."""

    seeds: Sequence[int]
    auc: float  # means
    auc_std: float | None  # sample standard deviation; None of one seed
    log_loss: float
    log_loss_std: float | None
    num_parameters: int
    seconds: float  # median


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean test AUC of ours minus that of FuxiCTR's re-run."""

    auc: float
    standard_error: float | None  # None where a side has one seed
    verdict: str


def summarise(runs: Sequence[RunResult]) -> Summary:
    """Sum up one model's runs on one side; at least one."""
    aucs, losses = [run.test_auc for run in runs], [run.test_log_loss for run in runs]
    many = len(runs) > 1
    return Summary(
        seeds=sorted(run.seed for run in runs),
        auc=statistics.fmean(aucs),
        auc_std=statistics.stdev(aucs) if many else None,
        log_loss=statistics.fmean(losses),
        log_loss_std=statistics.stdev(losses) if many else None,
        num_parameters=runs[0].num_parameters,
        seconds=statistics.median(run.seconds for run in runs),
    )


def compare(ours: Summary, peer: Summary, margin: float) -> Difference:
    """Difference of the means; the verdict says on which side of `margin` it lies, whatever its error."""
    difference = ours.auc - peer.auc
    error = None
    if ours.auc_std is not None and peer.auc_std is not None:
        error = math.hypot(ours.auc_std / len(ours.seeds) ** 0.5, peer.auc_std / len(peer.seeds) ** 0.5)
    if round(abs(difference), 12) <= margin:
        verdict = f"within {_short(margin)}" if margin else "equal"
    else:
        verdict = "higher" if difference > 0 else "lower"
    return Difference(auc=difference, standard_error=error, verdict=verdict)


class Reproduction:
    """A table and what is known of it by now."""

    def __init__(self, table: Table, rows: Sequence[Row], command: str) -> None:
        self.table, self.rows, self.command = table, rows, command
        self.results: list[RunResult] = []
        self.failures: list[RunFailure] = []

    def summary(self, model: str, side: Side) -> Summary | None:
        """Of one model on one side; None without a run."""
        runs = [run for run in self.results if (run.model, run.side) == (model, side)]
        return summarise(runs) if runs else None

    def difference(self, model: str) -> Difference | None:
        """Of one model; None unless both sides have a run."""
        ours, peer = self.summary(model, Side.OURS), self.summary(model, Side.PEER)
        return compare(ours, peer, self.table.margin) if ours and peer else None

    def write(self, folder: Path) -> None:
        """Write both files; each appears whole."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
        for name, content in ((MARKDOWN_FILE, self.markdown()), (JSON_FILE, text + "\n")):
            aside = folder / (name + ".partial")
            aside.write_text(content)
            aside.rename(folder / name)

    def as_json(self) -> dict[str, object]:
        """Everything, plain."""
        ordered = sorted(self.results, key=lambda run: (run.model, run.side.value, run.seed))
        return {
            "dataset": self.table.dataset,
            "command": self.command,
            "margin": self.table.margin,
            "machine": machine(),
            "models": [self._model_json(row) for row in self.rows],
            "runs": [asdict(run) | {"side": run.side.value} for run in ordered],
            "failures": [asdict(failure) | {"side": failure.side.value} for failure in self.failures],
        }

    def _model_json(self, row: Row) -> dict[str, object]:
        found = {side.value: self.summary(row.name, side) for side in Side}
        difference = self.difference(row.name)
        return {
            "model": row.name,
            "published": asdict(row.published) if row.published else None,
            **{side: asdict(summary) if summary else None for side, summary in found.items()},
            "difference": asdict(difference) if difference else None,
        }

    def markdown(self) -> str:
        """The table with what a reader must know of it."""
        columns = ["model", "published AUC", "log loss", "FuxiCTR AUC", "log loss", "recsys AUC", "log loss"]
        columns += ["difference", "verdict", "parameters", "seconds: recsys", "FuxiCTR"]
        cells = [self._cells(row) for row in self.rows]
        kept = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in cells)]
        lines = [[columns[i] for i in kept], ["---" for _ in kept], *([row[i] or "–" for i in kept] for row in cells)]
        parts = [
            f"# {self.table.title}: reproduction",
            "\n".join(f"| {' | '.join(line)} |" for line in lines),
            "\n".join(f"- {note}" for note in [self._best(), *self.table.notes, *self._facts()] if note),
        ]
        if self.failures:
            parts.append("Failed:\n\n" + "\n".join(f"- {_failure(failure)}" for failure in self.failures))
        return "\n\n".join([*parts, f"```sh\n{self.command}\n```"]) + "\n"

    def _cells(self, row: Row) -> list[str]:
        published, difference = row.published, self.difference(row.name)
        ours, peer = self.summary(row.name, Side.OURS), self.summary(row.name, Side.PEER)
        mean = f" ({_auc(published.mean_auc)})" if published and published.mean_auc else ""
        failed = sorted({failure.side.value for failure in self.failures if failure.model == row.name})
        return [
            row.title + (f" (failed: {', '.join(failed)})" if failed else ""),
            f"{_short(published.auc)}{mean}" if published else "",
            _short(published.log_loss) if published else "",
            *_metrics(peer),
            *_metrics(ours),
            _difference(difference),
            difference.verdict if difference else "",
            _parameters(row, ours),
            f"{ours.seconds:,.0f}" if ours else "",
            f"{peer.seconds:,.0f}" if peer else "",
        ]

    def _best(self) -> str:
        found = [(row, self.summary(row.name, Side.OURS)) for row in self.rows]
        done = [(summary.auc, row.title) for row, summary in found if summary]
        if not done:
            return "No run is done yet."
        auc, title = max(done)
        return f"Best mean of recsys: {title}, {_auc(auc)}."

    def _facts(self) -> Iterable[str]:
        seeds = sorted({run.seed for run in self.results})
        yield (
            f"Means ± standard deviations over seeds {', '.join(map(str, seeds))}, [n] where a model has n of them; "
            "difference: mean of recsys minus mean of FuxiCTR ± its standard error. The test rows are the same for "
            "all, so their own sampling error is not in it."
        )
        yield (
            "Selected on validation, test scored once a run. Seconds: median over seeds, all epochs with their "
            "validations, one thread, beside other work, so no measure of speed."
        )
        commits = sorted({run.commit for run in self.results if run.commit})
        yield f"{machine()}{'; commit ' if commits else ''}{', '.join(commits)}."


def machine() -> str:
    """What the runs had, in words."""
    return f"{os.cpu_count()} CPU cores"


def _failure(failure: RunFailure) -> str:
    message = " ".join(failure.message.split())
    return f"{failure.model}, {failure.side.value}, seed {failure.seed}: {message} (log: {failure.log})"


def _metrics(summary: Summary | None) -> tuple[str, str]:
    if summary is None:
        return "", ""
    number = f" [{len(summary.seeds)}]"
    return _spread(summary.auc, summary.auc_std) + number, _spread(summary.log_loss, summary.log_loss_std)


def _spread(mean: float, std: float | None) -> str:
    return _auc(mean) + (f" ± {_auc(std)}" if std is not None else "")


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    error = f" ± {_auc(difference.standard_error)}" if difference.standard_error is not None else ""
    return f"{'+' if difference.auc >= 0 else '−'}{_auc(abs(difference.auc))}{error}"


def _parameters(row: Row, ours: Summary | None) -> str:
    if ours is None:
        return ""
    published = row.published.num_parameters if row.published else None
    return f"{ours.num_parameters:,}" + (f" (BARS {published:,})" if published else "")


def _auc(value: float) -> str:
    return f"{value:.5f}".removeprefix("0")


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
