"""Predictions of several runs brought to the same rows in the same order; refused where they are not the same."""

from collections.abc import Mapping

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.evaluate.groups import group_ranks

ROW, LABEL, LOGIT, PREDICTION = "__row__", "label", "logit", "prediction"


def aligned(predictions: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, Tensor, tuple[Tensor, ...]]:
    """(The first frame by ascending `__row__`, its labels int64 (N,), logits (N,) of each run in that order).

    Where labels are numbers, which the column `prediction` of the first frame says, labels are float64, and predictions
    stand in the place of logits.

    Raises:
        DataError: a run lacks a column or has a bad value, holds a row twice, or other rows or labels than the first;
            the message says which.
    """
    numbers = any(PREDICTION in frame.columns for frame in list(predictions.values())[:1])
    score, dtype = (PREDICTION, pl.Float64()) if numbers else (LOGIT, pl.Int64())
    frames = {name: _sorted(name, frame, score) for name, frame in predictions.items()}
    (baseline, first), *others = frames.items()
    for name, frame in others:
        _check_same(baseline, first, name, frame)
    scores = tuple(_scores(name, frame[score]) for name, frame in frames.items())
    return first, torch.from_numpy(first[LABEL].cast(dtype).to_numpy(writable=True)), scores


def check_group_column(schema: pl.Schema, column: str) -> None:
    """Refuse a column that names no groups.

    Raises:
        DataError: there is no such column, or it holds lists.
    """
    if column not in schema:
        raise DataError(
            f"compare.group_key={column!r}: no such column beside the predictions, only {schema.names()}. Name it in "
            "dataset.passthrough and evaluate again, or choose one of these."
        )
    if schema[column].is_nested():
        raise DataError(f"compare.group_key={column!r}: it is {schema[column]}; a group needs one value per row.")


def group_ids(frame: pl.DataFrame, column: str) -> Tensor:
    """The group of each row, int64 (N,); a row without one is a group of its own, not one of a huge false user.

    Raises:
        DataError: there is no such column, or it holds lists.
    """
    check_group_column(frame.schema, column)
    codes = group_ranks(frame[column])
    alone = codes == 0
    codes[alone] = -1 - torch.arange(int(alone.sum()))
    return codes


def _sorted(name: str, frame: pl.DataFrame, score: str) -> pl.DataFrame:
    missing = [column for column in (ROW, LABEL, score) if column not in frame.columns]
    if missing:
        raise DataError(f"{name}: its predictions lack {missing}, there are {frame.columns}. Evaluate it again.")
    ordered = frame.sort(ROW)
    repeated = ordered.filter(pl.col(ROW).is_duplicated())
    if repeated.height:
        raise DataError(
            f"{name}: {repeated.height} predictions share a row with another, the first is row "
            f"{repeated[ROW][0]}: rows cannot be paired. Evaluate it again."
        )
    label = ordered[LABEL]
    right, wanted = (label == 0) | (label == 1), "neither 0 nor 1"
    if score == PREDICTION:
        right, wanted = label.cast(pl.Float64, strict=False).is_finite(), "no finite numbers"
    num_right = int(right.sum()) if label.dtype.is_numeric() else 0
    if num_right < ordered.height:
        raise DataError(f"{name}: {ordered.height - num_right} labels are {wanted}. Evaluate it again.")
    return ordered


def _scores(name: str, scores: pl.Series) -> Tensor:
    wrong = scores.null_count() or (scores.is_nan().any() if scores.dtype.is_float() else not scores.dtype.is_numeric())
    if wrong:
        raise DataError(
            f"{name}: its {scores.name}s ({scores.dtype}) hold nulls or NaN. Look for a diverged training run."
        )
    return torch.from_numpy(scores.to_numpy(writable=True))


def _check_same(baseline: str, first: pl.DataFrame, name: str, frame: pl.DataFrame) -> None:
    """Refuse rows or labels that differ from the baseline's."""
    only = [ours.join(theirs, on=ROW, how="anti")[ROW] for ours, theirs in ((first, frame), (frame, first))]
    if len(only[0]) or len(only[1]):
        of_which = [f"{len(rows):,} rows only in {run}" for run, rows in zip((baseline, name), only, strict=True)]
        example = next(rows for rows in only if len(rows))
        raise DataError(
            f"{baseline} and {name} scored different rows: {of_which[0]}, {of_which[1]} (such as row {example[0]}) of "
            f"{first.height:,} and {frame.height:,}. Paired tests need the same rows: evaluate both on one data set, "
            "with one `dataset.split` and `ingest.seed`."
        )
    differ = first[LABEL].cast(pl.Float64) != frame[LABEL].cast(pl.Float64)
    if differ.any():
        row = first[ROW].filter(differ)[0]
        raise DataError(
            f"{baseline} and {name} have other labels in {int(differ.sum()):,} of {first.height:,} rows, the first at "
            f"row {row}: these are other rows with the same numbers. Evaluate both on one data set."
        )
