"""`predictions.parquet` of a split, written in parts: its rows are never all in memory."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch

from recsys.core.errors import DataError
from recsys.core.labels import LABEL, label_columns
from recsys.core.manifest import Manifest
from recsys.core.names import WEIGHT
from recsys.data.writer import stored_name
from recsys.evaluate.frequency import FrequencyClasses
from recsys.evaluate.scored import BAYES_COLUMN

PREDICTIONS_NAME = "predictions.parquet"
PARTS_FOLDER = "predictions.parts"
LABELS_FOLDER = "labels"


def of_label(folder: Path, labels: Sequence[str], label: str) -> Path:
    """Where in an evaluation's folder one of the learned labels is reported: the first, which is the main one, in it.

    Others have folders below it.
    """
    return folder if label == labels[0] else folder / LABELS_FOLDER / label


def other_labels(folder: Path) -> dict[str, Path]:
    """Of an evaluation's folder those of the learned labels behind the main one, by label."""
    return {path.name: path for path in sorted((folder / LABELS_FOLDER).glob("*"))}


def split_files(folder: Path, split: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """These columns of a split's files as they are stored, a file at a time, in the order of its rows.

    Raises:
        DataError: a file is unreadable or lacks a column.
    """
    for name in Manifest.read(folder).splits[split].files:
        try:
            yield pl.read_parquet(folder / name, columns=list(columns))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{folder / name}: cannot read {list(columns)} ({error}). Run ingest again.") from error


def write_predictions(
    data: Path,
    split: str,
    batches: Iterator[torch.Tensor],
    folders: Sequence[Path],
    classes: Sequence[FrequencyClasses],
) -> None:
    """Write the scored rows of a split, a file of the split at a time.

    Args:
        data: folder of the ingested data set.
        split: whose rows were scored.
        batches: the model's outputs float32 (n,), or (n, T) of T tasks, of any number of rows each, in file order; of
            exactly as many rows as the split has.
        folders: where `predictions.parquet` of each task goes, the main one first.
        classes: features of whose ids a column with the training frequency is written.
    Raises:
        DataError: a file of the split is unreadable.
    """
    manifest = Manifest.read(data)
    schema = manifest.schema
    kept = {name: stored_name(name, schema) for name in schema.passthrough}
    kept |= {WEIGHT: WEIGHT} if schema.weight else {}
    labels = label_columns(schema.labels)[: len(folders)]
    columns = dict.fromkeys(["__row__", *labels, *kept.values(), *(c.feature for c in classes)])
    parts = [folder / PARTS_FOLDER for folder in folders]
    for each in parts:
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(parents=True)
    waiting = torch.empty(0, len(labels))
    for number, frame in enumerate(split_files(data, split, list(columns))):
        pieces = [waiting]
        while sum(piece.shape[0] for piece in pieces) < frame.height:
            pieces.append(next(batches).view(-1, len(labels)))
        logits = torch.cat(pieces)
        waiting = logits[frame.height :].clone()
        for label, own, each in zip(labels, logits[: frame.height].t().contiguous(), parts, strict=True):
            scored = _scored(frame, scores_of(own, manifest), _of_label(kept, label), classes)
            scored.write_parquet(each / f"{number:05d}.parquet")
    for each in parts:
        _joined(each, each.with_name(PREDICTIONS_NAME))


def _of_label(kept: dict[str, str], label: str) -> dict[str, str]:
    """What is written beside the scores of the label in this column, by its name there: the label, what is kept.

    True probabilities are the label's own, where they are known.
    """
    if label != LABEL:
        kept = {name: stored for name, stored in kept.items() if name != BAYES_COLUMN}
        own = kept.get(f"{BAYES_COLUMN}_{label.removeprefix(LABEL)}")
        kept |= {BAYES_COLUMN: own} if own else {}
    return {"label": label, **kept}


def scores_of(outputs: torch.Tensor, manifest: Manifest) -> list[pl.Series]:
    """What predictions hold of a model's outputs (N,), float32: `logit` and `probability`, or `prediction`."""
    if manifest.label is not None:
        return [pl.Series("prediction", manifest.label.predictions(outputs).float().numpy())]
    return [pl.Series("logit", outputs.numpy()), pl.Series("probability", torch.sigmoid(outputs).numpy())]


def _scored(
    frame: pl.DataFrame, scores: list[pl.Series], kept: dict[str, str], classes: Sequence[FrequencyClasses]
) -> pl.DataFrame:
    wanted = [pl.col("__row__"), *(pl.col(stored).alias(name) for name, stored in kept.items())]
    return frame.select(wanted).with_columns(*scores, *(each.of_ids(frame[each.feature]) for each in classes))


def _joined(parts: Path, path: Path) -> None:
    """One file of all parts, without reading them into memory."""
    files = sorted(parts.iterdir())
    if len(files) == 1:
        files[0].rename(path)
    else:
        pl.scan_parquet(files).sink_parquet(path)
    shutil.rmtree(parts)
