"""Runs that predict numbers compared: paired errors as NumPy resamples them, verdicts, and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate.compare_config import CompareConfig, Metric
from recsys.evaluate.compare_page import write_comparison
from recsys.evaluate.compared import Verdict
from tests.evaluate.compare_world import compared, said, world

USERS, ROWS = 120, 20
CONFIG = CompareConfig(group_key="user", num_replicates=400, slices=["device"])


def stars(seed: int, *noise: float) -> dict[str, pl.DataFrame]:
    """`run0`, …: each sees the true mean of a rating with errors of its own, some shared by a user's rows."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS), ROWS)
    true = generator.normal(3.5, 0.8, user.size)
    columns = {
        "__row__": np.arange(user.size),
        "label": (true + generator.normal(0, 0.7, user.size)).astype(np.float32),
        "user": user,
        "device": generator.choice(["phone", "tablet"], user.size),
    }
    found = {}
    for run, spread in enumerate(noise):
        prediction = true + generator.normal(0, 0.3, USERS)[user] + generator.normal(0, spread, user.size)
        found[f"run{run}"] = pl.DataFrame(columns | {"prediction": prediction.astype(np.float32)})
    return found


def rmses(frames: dict[str, pl.DataFrame], rows: np.ndarray) -> np.ndarray:
    errors = [(f["prediction"] - f["label"]).to_numpy().astype(float)[rows] for f in frames.values()]
    return np.array([np.sqrt((error**2).mean()) for error in errors])


def test_the_difference_and_its_error() -> None:
    frames = stars(1, 0.5, 0.3)
    found = compared(frames, CONFIG)
    assert found.metric is Metric.RMSE and {d.metric for d in found.overall} == {Metric.RMSE, Metric.MAE}
    (primary,) = (d for d in found.overall if d.metric is Metric.RMSE)
    first, second = rmses(frames, np.arange(USERS * ROWS))
    assert primary.difference.value == pytest.approx(second - first, rel=1e-6)
    generator = np.random.default_rng(0)
    drawn = (generator.integers(0, USERS, USERS) for _ in range(800))
    samples = [np.diff(rmses(frames, (users[:, None] * ROWS + np.arange(ROWS)).ravel())) for users in drawn]
    assert primary.row_error.value == pytest.approx(float(np.std(samples)), rel=0.15)
    assert primary.verdict is Verdict.BETTER and primary.gain > 0, "less error is better"
    assert {(d.column, d.value) for d in found.slices} == {("device", "phone"), ("device", "tablet")}


def test_equal_models_are_rarely_told_apart() -> None:
    config = CompareConfig(group_key="user", num_replicates=60)
    verdicts = [compared(stars(seed, 0.4, 0.4), config).overall[0].verdict for seed in range(40)]
    assert sum(verdict is not Verdict.UNDECIDED for verdict in verdicts) <= 7, "2 are expected at a level of 0.05"


def test_the_same_run_twice_is_identical_and_the_page_says_what_it_is_about(tmp_path: Path) -> None:
    frames = stars(2, 0.5)
    found = compared({"a": frames["run0"], "b": frames["run0"].drop("user", "device")}, CONFIG)
    assert all(d.verdict is Verdict.IDENTICAL for d in found.overall)
    other = compared(stars(3, 0.5, 0.3), CONFIG)
    assert "RMSE" in said(other) and "AUC" not in said(other)
    write_comparison(other, tmp_path, {"dataset": "stars"})
    assert "RMSE" in (tmp_path / "compare.html").read_text() and "RMSE" in (tmp_path / "compare.md").read_text()


def test_few_groups_are_not_tested() -> None:
    few = {name: frame.head(9 * ROWS) for name, frame in stars(4, 0.5, 0.3).items()}
    found = compared(few, CONFIG).overall[0]
    assert found.verdict is Verdict.UNTESTED and "there are 9 groups" in found.row_error.undefined_reason


def test_what_does_not_fit_is_refused() -> None:
    numbers, clicks = stars(5, 0.5, 0.3), world(5, users=30, rows=20)
    with pytest.raises(ConfigError, match=r"compare.metric=LOG_LOSS: the labels of these runs are numbers. Choose of"):
        compared(numbers, CompareConfig(metric=Metric.LOG_LOSS))
    with pytest.raises(ConfigError, match=r"compare.metric=RMSE: the labels of these runs are clicks"):
        compared(clicks, CompareConfig(metric=Metric.RMSE))
    with pytest.raises(DataError, match=r"run1: its predictions lack \['prediction'\]"):
        compared({"run0": numbers["run0"], "run1": clicks["run1"]}, CompareConfig())
    moved = numbers["run1"].with_columns(pl.col("label") + 0.25)
    with pytest.raises(DataError, match="have other labels in 2,400 of 2,400 rows"):
        compared({"run0": numbers["run0"], "run1": moved}, CompareConfig())
