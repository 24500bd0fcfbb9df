"""The generator: deterministic in any pieces, heavy-tailed, and its Bayes probabilities are right."""

from pathlib import Path

import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.data import synthetic
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.synthetic import SyntheticDataset
from tests.data.conftest import read_split

OPTIONS = IngestOptions()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    table = SyntheticDataset(num_rows=60_000).open(tmp_path_factory.mktemp("synthetic"))
    return pl.concat(pl.read_parquet(file.path) for file in table.files)


def test_labels_follow_the_bayes_probability(rows: pl.DataFrame) -> None:
    """In each tenth of the probability the clicks lie within 4 standard deviations of their expectation."""
    tenths = rows.sort("bayes_probability").with_row_index().group_by(pl.col("index") // 6_000)
    p = pl.col("bayes_probability")
    sums = tenths.agg((pl.col("label").sum() - p.sum()).alias("excess"), (p * (1 - p)).sum().sqrt().alias("deviation"))
    assert (sums["excess"].abs() < 4 * sums["deviation"]).all()


@pytest.mark.parametrize("seed", [1, 2, 3, 2021])
def test_bayes_auc_and_rate_are_as_configured(tmp_path: Path, seed: int) -> None:
    table = SyntheticDataset(num_rows=30_000, seed=seed).open(tmp_path)
    rows = pl.read_parquet(table.files[0].path)
    assert rows["label"].mean() == pytest.approx(0.25, abs=0.02)
    assert 0.78 < roc_auc_score(rows["label"], rows["bayes_probability"]) < 0.82


def test_ids_are_heavy_tailed_and_values_go_missing(rows: pl.DataFrame) -> None:
    largest = max((rows[f"C{i}"].drop_nulls().value_counts(sort=True) for i in range(1, 27)), key=lambda c: c.height)
    counts = largest["count"].to_list()
    assert len(counts) > 1_500 and sum(counts[:10]) > 0.5 * sum(counts) and counts[1_000] <= 3
    assert rows["C3"].null_count() / rows.height == pytest.approx(0.05, abs=0.01)
    assert rows["I4"].null_count() / rows.height == pytest.approx(0.2, abs=0.01)
    lengths = rows["tags"].str.split("|").list.len()
    assert lengths.max() == synthetic.MAX_TAGS and (rows["tags"] == "").mean() == pytest.approx(1 / 6, abs=0.01)


def test_rows_do_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    for size in (700, 5_000):
        monkeypatch.setattr(synthetic, "CHUNK_ROWS", size)
        table = SyntheticDataset(num_rows=2_000).open(tmp_path / str(size))
        frames.append(pl.concat(pl.read_parquet(file.path) for file in table.files))
    assert frames[0].drop("bayes_probability").equals(frames[1].drop("bayes_probability"))
    difference = (frames[0]["bayes_probability"] - frames[1]["bayes_probability"]).abs()
    assert float(difference.max()) < 1e-12  # type: ignore[arg-type]


def test_ingest_keeps_the_probability(tmp_path: Path) -> None:
    manifest = ingest(SyntheticDataset(num_rows=3_000, num_numeric=2, num_categorical=3), tmp_path, options=OPTIONS)
    assert manifest.dataset == "synthetic" and list(manifest.categorical) == ["C1", "C2", "C3", "tags"]
    test = read_split(tmp_path, "test", ["__row__", "bayes_probability"])
    raw = pl.concat(pl.read_parquet(path) for path in sorted((tmp_path / "raw").glob("*.parquet")))
    assert test["bayes_probability"].equals(raw["bayes_probability"].gather(test["__row__"]))
    assert Manifest.read(tmp_path) == manifest


def test_pairs_carry_their_share() -> None:
    generator = synthetic._Generator(SyntheticDataset())
    some = torch.arange(20_000)
    parts = generator._parts(generator._numbers(some), generator._ids(some), generator._tags(some))
    variances = torch.stack([part * scale for part, scale in zip(parts, generator._scales, strict=True)]).var(1)
    assert (variances / variances.sum()).tolist() == pytest.approx([0.39, 0.26, 0.35], abs=0.03)


@pytest.mark.parametrize(
    "values",
    [{"num_rows": 1}, {"positive_rate": 0.0}, {"zipf_exponent": 0.0}, {"pair_share": 1.0}, {"max_cardinality": 3}],
)
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"dataset.{next(iter(values))}"):
        SyntheticDataset(**values)  # type: ignore[arg-type]


def test_some_clicks_convert_and_the_probability_is_known(tmp_path: Path) -> None:
    without = SyntheticDataset(num_rows=60_000).open(tmp_path / "without")
    table = SyntheticDataset(num_rows=60_000, conversion_rate=0.2).open(tmp_path / "with")
    rows, before = (pl.concat(pl.read_parquet(f.path) for f in each.files) for each in (table, without))
    own = "bayes_probability_conversion"
    assert rows.drop("conversion", own).equals(before), "clicks do not depend on what comes of them"
    assert table.schema.labels == ("label", "conversion")
    assert not rows.filter((pl.col("conversion") == 1) & (pl.col("label") == 0)).height
    assert rows.filter(pl.col("label") == 1)["conversion"].mean() == pytest.approx(0.2, abs=0.02)
    assert (rows[own] <= rows["bayes_probability"]).all()
    tenths = rows.sort(own).with_row_index().group_by(pl.col("index") // 6_000)
    p = pl.col(own)
    sums = tenths.agg((pl.col("conversion").sum() - p.sum()).alias("excess"), (p * (1 - p)).sum().sqrt().alias("sd"))
    assert (sums["excess"].abs() < 4 * sums["sd"]).all()
    clicks = rows.filter(pl.col("label") == 1)
    of_click, of_own = (roc_auc_score(clicks["conversion"], clicks[c]) for c in ("bayes_probability", own))
    assert of_click > 0.6 and of_own > of_click + 0.05, "a task of its own, and a related one"
