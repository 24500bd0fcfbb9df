"""A calibration map fitted on validation rows: fitting, judging it on other rows, and its file."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate.config import Calibration
from recsys.evaluate.result import CalibrationResult
from recsys.evaluate.statistics import likelihood_metrics
from recsys.metrics import (
    IsotonicCalibration,
    MetricValue,
    PlattCalibration,
    ScoreCounts,
    auc_of,
    calibration_ratio_of,
    fit_isotonic,
    fit_platt,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedCalibration:
    """A map of logits to calibrated logits and the rows that it was fitted on; what an export would carry."""

    map: PlattCalibration | IsotonicCalibration
    split: str
    num_rows: int
    num_positives: int

    @classmethod
    def fit(cls, kind: Calibration, counts: ScoreCounts, *, split: str) -> "FittedCalibration":
        """Fit on the rows behind `counts`, whose scores are logits.

        Raises:
            DataError: there are no rows of both classes, or a logit is infinite. ConfigError: `kind` is NONE.
        """
        if kind is Calibration.NONE:
            raise ConfigError("evaluate.calibration=none names no map to fit. Choose platt or isotonic.")
        fitted = fit_platt(counts) if kind is Calibration.PLATT else _never_certain(fit_isotonic(counts), counts)
        rows = int(counts.num_rows), int(counts.num_positives)
        return cls(map=fitted, split=split, num_rows=rows[0], num_positives=rows[1])

    @property
    def kind(self) -> Calibration:
        """Which map it is."""
        return Calibration.PLATT if isinstance(self.map, PlattCalibration) else Calibration.ISOTONIC

    def apply(self, logits: Tensor) -> Tensor:
        """Calibrated logits float64, of the shape of logits (any)."""
        return self.map.apply(logits)

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats are written such that they come back to the last digit."""
        facts = {"split": self.split, "num_rows": self.num_rows, "num_positives": self.num_positives}
        if isinstance(self.map, PlattCalibration):
            return {"kind": self.kind.value, "slope": self.map.slope, "intercept": self.map.intercept, **facts}
        points = {"knots": self.map.knots.tolist(), "probabilities": self.map.probabilities.tolist()}
        return {"kind": self.kind.value, **points, **facts}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FittedCalibration":
        """The inverse of `to_json`.

        Raises:
            DataError: something is missing or of another kind.
        """
        try:
            fitted: PlattCalibration | IsotonicCalibration
            if Calibration(values["kind"]) is Calibration.PLATT:
                fitted = PlattCalibration(slope=float(values["slope"]), intercept=float(values["intercept"]))
            else:
                knots, rates = (torch.tensor(values[k], dtype=torch.float64) for k in ("knots", "probabilities"))
                fitted = IsotonicCalibration(knots=knots, probabilities=rates)
            rows = int(values["num_rows"]), int(values["num_positives"])
            return cls(map=fitted, split=str(values["split"]), num_rows=rows[0], num_positives=rows[1])
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"no calibration map: {error!r}. Run evaluate with evaluate.calibration again.") from error


def _never_certain(fitted: IsotonicCalibration, counts: ScoreCounts) -> IsotonicCalibration:
    """The map with its ends pulled in: no number of rows shows that something never happens, and one row would cost an
    infinite loss. By Laplace's rule of succession, no event among N rows leaves a rate of 1 / (N + 2).
    """
    least = 1 / (counts.num_rows + 2)
    return IsotonicCalibration(knots=fitted.knots, probabilities=fitted.probabilities.clamp(least, 1 - least))


def judge(fitted: FittedCalibration, counts: ScoreCounts, *, num_bins: int) -> CalibrationResult:
    """Metrics of the rows behind `counts` before and after the map; fit it on other rows than these."""
    # A map may tie logits or reverse them: counts of one calibrated logit are put together again.
    after = ScoreCounts(fitted.apply(counts.scores), counts.positives, counts.negatives).merged()
    name = f"{fitted.kind.value}, fitted on {fitted.num_rows:,} {fitted.split} rows"
    return CalibrationResult(
        name=name, before=_metrics(counts, num_bins=num_bins), after=_metrics(after, num_bins=num_bins)
    )


def _metrics(counts: ScoreCounts, *, num_bins: int) -> dict[str, MetricValue]:
    found = {"auc": auc_of(counts), "calibration_ratio": calibration_ratio_of(counts)}
    return found | likelihood_metrics(counts, num_bins=num_bins)
