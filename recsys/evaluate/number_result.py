"""`NumberEvaluation`: what a report of predicted numbers shows and a machine reads, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from recsys.evaluate.result import Interval, Metrics


@dataclass(frozen=True, kw_only=True)
class NumberSlice:
    """Metrics of the rows whose `column` has the value, or lies in the bucket, that `value` names."""

    column: str
    value: str
    num_rows: int
    metrics: Metrics
    rmse_interval: Interval


@dataclass(frozen=True, kw_only=True)
class PredictionBin:
    """Rows of neighbouring predictions: their mean prediction and mean label, by weight."""

    num_rows: int
    min_prediction: float
    max_prediction: float
    mean_prediction: float
    mean_label: float
    label_interval: Interval


@dataclass(frozen=True, kw_only=True)
class NumberEvaluation:
    """One evaluation of one set of predicted numbers."""

    num_rows: int
    metrics: Metrics
    intervals: Mapping[str, Interval]  # of 95%, by metric
    bins: tuple[PredictionBin, ...]  # ascending; empty where there are no rows, or more than memory holds
    slices: tuple[NumberSlice, ...]
    weight: float | None = None  # sum of the weights of rows, by which metrics count them; None: all count alike
