"""Planted interests: the formula worked out row by row in plain Python, and a past that averaging cannot read."""

import math
from pathlib import Path

import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.data import planted
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.planted import PlantedDataset
from tests.data.conftest import read_split

PER_INTEREST = 4 * 24  # items of the default config


def generate(config: PlantedDataset, folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(file.path) for file in config.open(folder).files)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return generate(PlantedDataset(num_rows=30_000), tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def numbers() -> dict[int, int]:
    """Item id -> its number, from which interest, category and side follow."""
    ids = planted._Generator(PlantedDataset())._ids("item", torch.arange(24 * PER_INTEREST)).to_list()
    assert len(set(ids)) == len(ids)
    return {item: number for number, item in enumerate(ids)}


def leans(row: dict[str, list[int]], relevance: str, numbers: dict[int, int]) -> float:
    """Mean side of the events that `relevance` names."""
    sides = [
        1 - 2 * (numbers[item] % 2) for item, digit in zip(row["hist_item"], relevance, strict=True) if digit == "1"
    ]
    return sum(sides) / len(sides) if sides else 0.0


def test_every_row_follows_the_formula(rows: pl.DataFrame, numbers: dict[int, int]) -> None:
    categories: dict[int, int] = {}
    for row in rows.head(1_000).to_dicts():
        target, past = numbers[row["item"]], [numbers[item] for item in row["hist_item"]]
        assert row["interest"] == target // PER_INTEREST
        relevance = "".join(str(int(item // PER_INTEREST == row["interest"])) for item in past)
        assert row["relevance"] == relevance
        logit = -0.5 + 3.0 * (1 - 2 * (target % 2)) * leans(row, relevance, numbers)
        assert row["bayes_probability"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-12)
        for item, category in [(target, row["category"]), *zip(past, row["hist_category"], strict=True)]:
            assert categories.setdefault(item // 24, category) == category
        assert (
            10 <= len(past) <= 40 and len(row["hist_gap"]) == len(past) and row["hist_gap"] == sorted(row["hist_gap"])
        )
    assert len(set(categories.values())) == len(categories) == 24 * 4


def test_labels_follow_the_bayes_probability(rows: pl.DataFrame) -> None:
    """In each tenth of the probability the clicks lie within 4 standard deviations of their expectation."""
    tenths = rows.sort("bayes_probability").with_row_index().group_by(pl.col("index") // 3_000)
    p = pl.col("bayes_probability")
    sums = tenths.agg((pl.col("label").sum() - p.sum()).alias("excess"), (p * (1 - p)).sum().sqrt().alias("deviation"))
    assert (sums["excess"].abs() < 4 * sums["deviation"]).all()
    assert 0.91 < roc_auc_score(rows["label"], rows["bayes_probability"]) < 0.93
    assert 0.35 < float(rows["label"].mean()) < 0.5  # type: ignore[arg-type]


def test_interests_and_sides_are_as_configured(rows: pl.DataFrame, numbers: dict[int, int]) -> None:
    """A fifth to a third of the past is relevant (4 interests, some twice), and 85 % of it lies on one side."""
    digits = "".join(rows["relevance"].to_list())
    assert 0.24 < digits.count("1") / len(digits) < 0.34
    of_user: dict[tuple[int, int], list[int]] = {}
    for row in rows.head(20_000).select("user", "hist_item").to_dicts():
        for item in row["hist_item"]:
            number = numbers[item]
            of_user.setdefault((row["user"], number // PER_INTEREST), []).append(number % 2)
    many = [sum(sides) / len(sides) for sides in of_user.values() if len(sides) >= 30]
    assert len(many) > 100
    assert sum(max(share, 1 - share) for share in many) / len(many) == pytest.approx(0.85, abs=0.01)
    assert sum(share > 0.5 for share in many) / len(many) == pytest.approx(0.5, abs=0.06)


def test_the_average_of_the_whole_past_says_little(rows: pl.DataFrame, numbers: dict[int, int]) -> None:
    """Whoever knew every item's side and averaged all events would stay far below whoever attends."""
    some = rows.head(10_000)
    blind = [
        (1 - 2 * (numbers[row["item"]] % 2)) * leans(row, "1" * len(row["hist_item"]), numbers)
        for row in some.to_dicts()
    ]
    assert roc_auc_score(some["label"], blind) < roc_auc_score(some["label"], some["bayes_probability"]) - 0.1


def test_target_and_user_alone_say_nothing(rows: pl.DataFrame) -> None:
    """Labels of an item or a category differ from the common rate by chance alone."""
    rate = float(rows["label"].mean())  # type: ignore[arg-type]
    for name in ("item", "category"):
        groups = rows.group_by(name).agg(pl.len().alias("n"), pl.col("label").sum().alias("clicks"))
        z = (groups["clicks"] - groups["n"] * rate) / (groups["n"] * rate * (1 - rate)).sqrt()
        assert float(z.std()) == pytest.approx(1, abs=0.25)  # type: ignore[arg-type]


def test_rows_do_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    for size in (700, 5_000):
        monkeypatch.setattr(planted, "CHUNK_ROWS", size)
        frames.append(generate(PlantedDataset(num_rows=2_000), tmp_path / str(size)))
    assert frames[0].drop("bayes_probability").equals(frames[1].drop("bayes_probability"))
    difference = (frames[0]["bayes_probability"] - frames[1]["bayes_probability"]).abs()
    assert float(difference.max()) < 1e-12  # type: ignore[arg-type]
    other = generate(PlantedDataset(num_rows=2_000, seed=1), tmp_path / "other")
    assert not set(other["item"]) & set(frames[0]["item"]) and other["label"].to_list() != frames[0]["label"].to_list()


def test_ingest_keeps_what_was_planted(tmp_path: Path) -> None:
    manifest = ingest(PlantedDataset(num_rows=3_000), tmp_path, options=IngestOptions())
    assert Manifest.read(tmp_path) == manifest
    assert {f.name: f.vocabulary for f in manifest.schema.categorical if f.multi_valued} == {
        "hist_item": "item", "hist_category": "category", "hist_gap": "",
    }  # fmt: skip
    test = read_split(tmp_path, "test", ["__row__", "relevance", "bayes_probability", "interest", "hist_item"])
    assert test["relevance"].str.len_chars().to_list() == test["hist_item"].list.len().to_list()
    raw = pl.concat(pl.read_parquet(path) for path in sorted((tmp_path / "raw").glob("*.parquet")))
    assert test["relevance"].equals(raw["relevance"].gather(test["__row__"]))


@pytest.mark.parametrize(
    "values",
    [{"num_rows": 1}, {"items_per_category": 3}, {"items_per_category": 0}, {"fidelity": 0.4}, {"max_length": 0}],
)
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"dataset.{next(iter(values))}"):
        PlantedDataset(**values)  # type: ignore[arg-type]
