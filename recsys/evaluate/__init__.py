"""Offline evaluation: metrics of predictions, overall and by slice, checks of the data, and a report of them."""

from recsys.evaluate.calibrated import FittedCalibration
from recsys.evaluate.config import Calibration, EvaluateConfig
from recsys.evaluate.number_report import render_numbers, write_numbers
from recsys.evaluate.number_result import NumberEvaluation
from recsys.evaluate.numbers import check_number_options, evaluate_numbers
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
    "NumberEvaluation",
    "Predictions",
    "RocCurve",
    "ScoreHistogram",
    "SliceRow",
    "check_number_options",
    "evaluate",
    "evaluate_numbers",
    "read_statistics",
    "render",
    "render_numbers",
    "write",
    "write_numbers",
]
