"""Offline evaluation: metrics of a frame of predictions, overall and by slice, and a report of them."""

from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.report import render, write
from recsys.evaluate.result import Evaluation, RocCurve, ScoreHistogram, SliceRow
from recsys.evaluate.scoring import evaluate

__all__ = [
    "EvaluateConfig",
    "Evaluation",
    "RocCurve",
    "ScoreHistogram",
    "SliceRow",
    "evaluate",
    "render",
    "write",
]
