"""A fitted map is judged on other rows, comes back from its file, and does what it says."""

import json

import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate import Calibration, EvaluateConfig, FittedCalibration, evaluate
from recsys.evaluate.calibrated import judge
from recsys.metrics import ScoreCounts, auc_of

KINDS = [Calibration.PLATT, Calibration.ISOTONIC]


def counts(seed: int, num: int = 20_000) -> ScoreCounts:
    """Rows whose logits are twice too sure and one too high."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randn(num, generator=generator) - 1
    labels = torch.rand(num, generator=generator) < torch.sigmoid(true)
    return ScoreCounts.from_rows(labels, (true * 2 + 1).float())


@pytest.mark.parametrize("kind", KINDS)
def test_it_mends_what_validation_shows(kind: Calibration) -> None:
    fitted = FittedCalibration.fit(kind, counts(1), split="validation")
    result = judge(fitted, counts(2), num_bins=20)
    assert result.name == f"{kind.value}, fitted on 20,000 validation rows"
    assert result.before["calibration_ratio"].value_or(0) > 1.1
    assert result.after["calibration_ratio"].value == pytest.approx(1, abs=0.03)
    for name in ("log_loss", "brier_score", "normalized_entropy", "calibration_error"):
        assert result.after[name].value_or(9) < result.before[name].value_or(0), name
    assert result.after["auc"].value == pytest.approx(result.before["auc"].value, abs=2e-3)
    if kind is Calibration.PLATT:
        assert result.after["auc"] == result.before["auc"] == auc_of(counts(2))


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_json_to_the_last_digit(kind: Calibration) -> None:
    fitted = FittedCalibration.fit(kind, counts(1, 500), split="validation")
    again = FittedCalibration.from_json(json.loads(json.dumps(fitted.to_json())))
    logits = torch.linspace(-9, 9, 301)
    assert torch.equal(again.apply(logits), fitted.apply(logits))
    assert (again.kind, again.split, again.num_rows, again.num_positives) == (
        kind, "validation", 500, fitted.num_positives,
    )  # fmt: skip


def test_a_map_that_reverses_the_ranking_says_so() -> None:
    backwards = FittedCalibration.from_json(
        {"kind": "platt", "slope": -1.0, "intercept": 0.0, "split": "validation", "num_rows": 9, "num_positives": 3}
    )
    result = judge(backwards, counts(3, 1000), num_bins=5)
    assert result.after["auc"].value == pytest.approx(1 - result.before["auc"].value_or(0), abs=1e-12)


@pytest.mark.parametrize("values", [{}, {"kind": "beta"}, {"kind": "platt", "slope": 1.0}, {"kind": "isotonic"}])
def test_what_is_no_map_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="no calibration map"):
        FittedCalibration.from_json(values)


def test_no_map_and_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="names no map"):
        FittedCalibration.fit(Calibration.NONE, counts(1, 100), split="validation")
    negatives = ScoreCounts.from_rows(torch.zeros(5), torch.arange(5.0))
    with pytest.raises(DataError, match="cannot be fitted, because all 5 labels are 0"):
        FittedCalibration.fit(Calibration.PLATT, negatives, split="validation")


def test_evaluate_reports_it_beside_unchanged_metrics(predictions: object) -> None:
    fitted = FittedCalibration.fit(Calibration.PLATT, counts(1), split="validation")
    config = EvaluateConfig(num_replicates=0)
    plain, judged = (evaluate(predictions, config, calibration=each) for each in (None, fitted))  # type: ignore[arg-type]
    assert plain.metrics == judged.metrics and plain.calibration is None and judged.calibration is not None
    for name, value in judged.calibration.before.items():
        assert judged.metrics[name].value == pytest.approx(value.value, rel=1e-6), name
