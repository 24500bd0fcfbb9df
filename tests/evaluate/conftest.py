"""A frame of predictions with every kind of column that an evaluation meets."""

import numpy as np
import polars as pl
import pytest


@pytest.fixture(scope="session")
def predictions() -> pl.DataFrame:
    """4,000 rows whose true log-odds are known; `logit` is them with noise."""
    generator = np.random.default_rng(7)
    true = generator.normal(-1.5, 1.2, 4000)
    logit = (true + generator.normal(0, 0.7, 4000)).astype(np.float32)
    age = generator.gamma(4, 9, 4000)
    age[::50] = np.nan
    return pl.DataFrame(
        {
            "__row__": np.arange(4000),
            "label": (generator.random(4000) < 1 / (1 + np.exp(-true))).astype(np.int8),
            "logit": logit,
            "probability": (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32),
            "bayes_probability": 1 / (1 + np.exp(-true)),
            "user": generator.integers(0, 300, 4000),
            "device": generator.choice(["phone", "tablet", '<script>alert("x")</script>', "$5 & up"], 4000),
            "age": age,
        }
    )
