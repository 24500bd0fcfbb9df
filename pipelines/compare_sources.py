"""The runs that are compared: what they scored, on which data, and what they cost."""

import difflib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.pareto_results import SERVED, latency_ms
from pipelines.predictions import PREDICTIONS_NAME, other_labels
from pipelines.stage import STAGE_NAME, read_record
from recsys.core.errors import ConfigError, RecsysError, StageError
from recsys.evaluate.compare_config import CompareConfig
from recsys.evaluate.compared import Cost
from recsys.evaluate.sliced import DAY, FREQUENCY
from recsys.metrics import GroupWeight

MOST_SHOWN = 5  # differences or names in a message

HOW_INGESTED = {"ingest.rows_per_file", "ingest.chunk_rows", "ingest.counts_mib", "dataset.name"}
HOW_ENCODED = {
    "dataset.numeric",
    "dataset.categorical",
    "dataset.label",
    "dataset.other_labels",
    "dataset.passthrough",
    "dataset.transform",
    "dataset.fill",
    "dataset.min_count",
    "dataset.max_length",
    "dataset.log.attributes",
    "dataset.side.attributes",
}
"""Options that say how rows of files are encoded, not which: with all others equal, and the files, rows are the same.
Of generated rows any option may decide which they are. Labels are compared row by row beside."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One evaluated run."""

    name: str
    folder: Path
    record: Mapping[str, Any]  # of its evaluation
    train: Path  # folder of its training, which may be another run's
    label: str = ""  # which of the labels that it learned is compared; "": the main one

    @property
    def predictions(self) -> Path:
        """Its scored test rows.

        Raises:
            ConfigError: it did not learn the label.
        """
        evaluated = self.folder / "evaluate"
        others = other_labels(evaluated)
        main = self.record["resolved"]["dataset"].get("label", "label")
        if self.label in ("", main):
            return evaluated / PREDICTIONS_NAME
        if self.label not in others:
            raise ConfigError(
                f"compare.label={self.label!r}: {self.name} did not learn it; it has {[main, *others]}. Name one of "
                "these, or train a model of several tasks on data with that label."
            )
        return others[self.label] / PREDICTIONS_NAME

    def option(self, name: str) -> Any:
        """What of its evaluation holds for a comparison: `group_key`, `slices` as reports name them, `gauc_weight`."""
        options = self.record["config"]["evaluate"]
        if name == "gauc_weight":
            return next((w for w in GroupWeight if str(options.get(name)).lower() == w.value), GroupWeight.IMPRESSIONS)
        if name == "slices":
            frequencies, days = (options.get(key, []) for key in ("frequency_slices", "day_slices"))
            return [*options[name], *(FREQUENCY + f for f in frequencies), *(DAY + column for column in days)]
        return options[name]

    @property
    def ingest(self) -> str:
        """Fingerprint of the data."""
        return str(self.record["inputs"]["ingest"])

    def inputs(self) -> dict[str, str]:
        """Fingerprints of all that a comparison reads of it, by name."""
        found = {f"{self.name}/evaluate": str(self.record["fingerprint"])}
        for name, folder in (("train", self.train), ("export", self.folder / "export")):
            if (record := _record(folder)) is not None:
                found[f"{self.name}/{name}"] = str(record["fingerprint"])
        return found

    def cost(self, *, measure_latency: bool) -> Cost:
        """Bytes and speeds, as far as they are known."""
        trained = _json(self.train / "metrics.json") if _record(self.train) is not None else {}
        own = self.train.parent == self.folder  # another run's bytes are those of its own way of serving
        exported, bundle = _record(self.folder / "export"), self.folder / "export"
        current = exported is not None and exported["inputs"].get("train") == self.record["inputs"].get("train")
        served = _json(bundle / "manifest.json")["models"].get(SERVED, {}) if current else {}
        return Cost(
            method=self.name,
            embedding_bytes=served.get("plan_bytes", trained.get("plan.bytes") if own else None),
            file_bytes=served.get("file_bytes"),
            train_rows_per_second=trained.get("train.rows_per_second"),
            latency_ms=latency_ms(bundle) if measure_latency and served else None,
        )


def read_source(runs: Path, name: str, label: str = "") -> Source:
    """An evaluated run.

    Raises:
        ConfigError: it lists items.
        StageError: there is none of that name, or it was trained again since it was evaluated.
    """
    folder = runs / name
    if not (folder / "evaluate" / STAGE_NAME).is_file():
        raise StageError(_missing(runs, name))
    record = read_record(folder / "evaluate")
    if record["resolved"].get("retrieval") is not None:
        raise ConfigError(
            f"compare.runs names {name}, which lists items and scores no rows. Recall with its interval is in "
            f"{folder / 'evaluate'} (report.md, metrics.json); `python -m tools.recall_by_bytes` tells such runs apart "
            "user by user."
        )
    train = runs / (record["resolved"].get("trained_by") or name) / "train"
    trained = _record(train)
    if trained is not None and trained["fingerprint"] != record["inputs"].get("train"):
        raise StageError(
            f"{folder / 'evaluate'} holds the scores of another training than {train} does. Evaluate the run again: "
            "`python -m pipelines.evaluate` with its options and overwrite=true."
        )
    return Source(name=name, folder=folder, record=record, train=train, label=label)


def _missing(runs: Path, name: str) -> str:
    state = "was not evaluated" if (runs / name).is_dir() else "does not exist"
    known = [str(path.parent.parent.relative_to(runs)) for path in sorted(runs.rglob(f"evaluate/{STAGE_NAME}"))]
    near = difflib.get_close_matches(name, known, n=MOST_SHOWN, cutoff=0.3) or known[:MOST_SHOWN]
    hint = f"Evaluated runs are {near}" + (f" and {len(known) - len(near)} more." if len(known) > len(near) else ".")
    return (
        f"compare.runs: {runs / name} {state}. Run `python -m pipelines.evaluate` with its options first, or name "
        f"another. {hint if known else f'No run below {runs} was evaluated.'}"
    )


def check_same_data(runs: Path, sources: Sequence[Source], *, across_ingests: bool) -> list[str]:
    """Refuse runs that were evaluated on other data than the first.

    Returns:
        What a reader must know of the data.

    Raises:
        StageError: naming what differs.
    """
    first, *others = sources
    differing = [source for source in others if source.ingest != first.ingest]
    if not differing:
        return []
    for source in differing:
        what = dict(_differences(_data_options(first), _data_options(source)))
        shown = _shown(what) or "the same options, but the raw files have changed in between"
        said = f"{first.name} and {source.name} were evaluated on other data ({shown})"
        if not across_ingests:
            raise StageError(
                f"{said}. Paired tests need the same rows: train and evaluate both on one data set. If only the "
                "encoding differs (features, vocabularies), set compare.across_ingests=true: raw files, rows and "
                "labels are then compared."
            )
        _check_same_rows((_raw_inputs(runs, first), _raw_inputs(runs, source)), what, said)
    names = ", ".join(source.name for source in differing)
    return [f"Encoded otherwise than the baseline's data, from the same raw files, rows and labels: {names}."]


def _check_same_rows(raw: tuple[dict[str, str], dict[str, str]], what: Mapping[str, str], said: str) -> None:
    """Refuse what may be other rows, even if it has the same row numbers and labels.

    Args:
        raw: fingerprints of the raw files of both.
        what: the options that differ.
        said: the sentence that an error begins with.
    """
    if raw[0] != raw[1]:
        raise StageError(f"{said}, and the raw files differ too: {raw[0]} against {raw[1]}.")
    allowed = HOW_INGESTED | (HOW_ENCODED if raw[0] else set())
    deciding = {key: text for key, text in what.items() if key not in allowed}
    if deciding:
        raise StageError(
            f"{said}: {_shown(deciding)} may decide which rows there are, not how they are encoded alone, so these may "
            f"be other rows with the same numbers. compare.across_ingests takes runs that differ in {sorted(allowed)}."
        )


def _shown(what: Mapping[str, str]) -> str:
    return "; ".join([f"{key}: {text}" for key, text in what.items()][:MOST_SHOWN])


def column_options(sources: Sequence[Source], config: CompareConfig) -> dict[str, Any]:
    """`group_key`, `gauc_weight` and `slices`: as given, else as the runs were evaluated; slices are the baseline's.

    Raises:
        ConfigError: the runs were evaluated with different groups or weights of them.
    """
    found: dict[str, Any] = {"slices": sources[0].option("slices") if config.slices is None else config.slices}
    for name in ("group_key", "gauc_weight"):
        given, values = getattr(config, name), [source.option(name) for source in sources]
        if given is None and any(value != values[0] for value in values):
            said = ", ".join(f"{source.name}: {value!r}" for source, value in zip(sources, values, strict=True))
            raise ConfigError(
                f"compare.{name} is not set, and the runs were evaluated with different ones ({said}). Set it."
            )
        found[name] = values[0] if given is None else given
    return found


def joined_cost(method: str, costs: Sequence[Cost]) -> Cost:
    """Of a method, the medians of its runs; unknown where one of them is."""
    found: dict[str, float | None] = {}
    for name in ("embedding_bytes", "file_bytes", "train_rows_per_second", "latency_ms"):
        values: list[float | None] = [getattr(cost, name) for cost in costs]
        known = [value for value in values if value is not None]
        found[name] = statistics.median(known) if len(known) == len(values) else None
    return Cost(method=method, **found)


def _data_options(source: Source) -> dict[str, Any]:
    return {key: source.record["resolved"][key] for key in ("dataset", "ingest")}


def _differences(first: Any, second: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(key, `a against b`) of every option that differs."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            yield from _differences(first.get(key), second.get(key), f"{where}.{key}".lstrip("."))
    elif first != second:
        yield where, f"{first!r} against {second!r}"


def _raw_inputs(runs: Path, source: Source) -> dict[str, str]:
    """Fingerprints of the raw files.

    Raises:
        StageError: the data are no longer there.
    """
    for path in sorted((runs / "data").glob(f"*/{STAGE_NAME}")):
        record = _record(path.parent)
        if record is not None and record["fingerprint"] == source.ingest:
            return dict(record["inputs"])
    raise StageError(
        f"the data that {source.name} was evaluated on are no longer below {runs / 'data'}, so nothing says that its "
        "raw files are the same. Run `python -m pipelines.ingest` with its options."
    )


def _record(folder: Path) -> dict[str, Any] | None:
    """Record of a finished stage; None where there is none."""
    try:
        return read_record(folder)
    except RecsysError:
        return None


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
