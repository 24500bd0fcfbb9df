"""Offline evaluation: metrics of predictions, overall and by slice, checks of the data, and a report of them."""

from recsys.evaluate.calibrated import FittedCalibration
from recsys.evaluate.config import Calibration, EvaluateConfig
from recsys.evaluate.report import render, write
from recsys.evaluate.result import Contrast, Evaluation, Interval, RocCurve, ScoreHistogram, SliceRow
from recsys.evaluate.scoring import evaluate, read_statistics
from recsys.evaluate.source import Predictions

__all__ = [
    "Calibration",
    "Contrast",
    "EvaluateConfig",
    "Evaluation",
    "FittedCalibration",
    "Interval",
    "Predictions",
    "RocCurve",
    "ScoreHistogram",
    "SliceRow",
    "evaluate",
    "read_statistics",
    "render",
    "write",
]
