"""Predictions of runs that are equally good by construction, on rows whose users differ."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from recsys.evaluate.compare import compare
from recsys.evaluate.compare_config import CompareConfig
from recsys.evaluate.compare_words import sentences
from recsys.evaluate.compared import Comparison
from recsys.evaluate.config import EvaluateConfig

BY_USER = CompareConfig(group_key="user", num_replicates=60)
SLICING = EvaluateConfig(min_slice_rows=100)


def compared(frames: Mapping[str, pl.DataFrame], config: CompareConfig = BY_USER) -> Comparison:
    """The comparison of these runs."""
    return compare(frames, config, SLICING)


def said(comparison: Comparison, candidate: int = 0) -> str:
    """All sentences on a candidate."""
    return "\n".join(sentences(comparison, comparison.candidates[candidate]))


def world(
    seed: int, *, users: int, rows: int, num_runs: int = 2, noise: tuple[float, ...] = (), shift: tuple[float, ...] = ()
) -> dict[str, pl.DataFrame]:
    """`run0`, `run1`, …: each sees the true log-odds with errors of its own, some of them shared by a user's rows.

    Args:
        seed: of everything.
        users, rows: of each user.
        num_runs: how many.
        noise: standard deviation of each run's errors by row; what is left out: 0.8.
        shift: added to each run's logits; what is left out: 0.
    """
    generator = np.random.default_rng(seed)
    number = users * rows
    user = np.repeat(np.arange(users), rows)
    true = generator.normal(-1, 1, number) + generator.normal(0, 0.7, users)[user]
    columns = {
        "__row__": np.arange(number),
        "label": (generator.random(number) < 1 / (1 + np.exp(-true))).astype(np.int8),
        "user": user,
        "device": generator.choice(["phone", "tablet", "<b>tv</b>"], number),
    }
    found = {}
    for run in range(num_runs):
        spread = noise[run] if run < len(noise) else 0.8
        logit = true + generator.normal(0, 0.6, users)[user] + generator.normal(0, spread, number)
        logit += shift[run] if run < len(shift) else 0.0
        found[f"run{run}"] = pl.DataFrame(columns | {"logit": logit.astype(np.float32)})
    return found
