"""Checks of the data find what was planted, count exactly, and are silent about sound data."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pytest

from recsys.core.manifest import CategoricalStatistics, Manifest, NumericStatistics, Split
from recsys.core.schema import CategoricalFeature, IdEncoding, NumericFeature, Schema
from recsys.evaluate import EvaluateConfig
from recsys.evaluate.data_checks import DataChecks, FeatureCheck, check_data
from recsys.metrics import MetricValue

Frames = dict[str, pl.DataFrame]


def sound(num_rows: int, seed: int) -> pl.DataFrame:
    """Rows whose label depends a little on every column."""
    generator = np.random.default_rng(seed)
    price, item = generator.normal(0, 1, num_rows), np.minimum(generator.zipf(1.5, num_rows), 400)
    labels = generator.random(num_rows) < 1 / (1 + np.exp(1.2 - 0.4 * price - 0.5 * (item % 2)))
    tags = [generator.integers(1, 30, size).tolist() for size in generator.integers(0, 4, num_rows)]
    return pl.DataFrame(
        {
            "__label__": labels.astype(np.float32),
            "price": price.astype(np.float32),
            "item": item,
            "key": generator.integers(-(2**62), 2**62, num_rows),
            "tags": pl.Series(tags, dtype=pl.List(pl.Int64)),
        }
    )


COLLIDING = {"item": MetricValue.of(0.25), "key": MetricValue.undefined("computed")}


def check(frames: Frames, *, rows_at_once: int = 997, **options: object) -> DataChecks:
    schema = Schema(
        label="y",
        numeric=(NumericFeature(name="price"),),
        categorical=(
            CategoricalFeature(name="item"),
            CategoricalFeature(name="key", encoding=IdEncoding.HASH),
            CategoricalFeature(name="tags", multi_valued=True),
        ),
    )
    sizes = {"item": 401, "key": None, "tags": 31}
    manifest = Manifest(
        dataset="made",
        schema=schema,
        splits={
            name: Split(files=("a",), file_rows=(f.height,), num_positive=int(f["__label__"].sum()))
            for name, f in frames.items()
        },
        numeric={"price": NumericStatistics(mean=0.0, std=1.0, num_missing=0)},
        categorical={
            name: CategoricalStatistics(num_embeddings=size, num_keys=9, oov_count=0, octave_counts=(1,), max_length=3)
            for name, size in sizes.items()
        },
        fingerprint="",
    )

    def read(split: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        return frames[split].select(columns).iter_slices(rows_at_once)

    return check_data(manifest, read, EvaluateConfig(**options), colliding=COLLIDING)  # type: ignore[arg-type]


def feature(checks: DataChecks, name: str) -> FeatureCheck:
    return next(each for each in checks.features if each.feature == name)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return {"train": sound(6000, 1), "test": sound(2000, 2)}


def test_sound_data_has_no_findings(frames: Frames) -> None:
    checks = check(frames)
    assert checks.findings == () and (checks.num_train_rows, checks.num_test_rows) == (6000, 2000)
    assert checks.test_rate.value == pytest.approx(frames["test"]["__label__"].mean())
    for each in checks.features:
        assert 0.4 < each.auc.value_or(0) < 0.65, each.feature
        assert each.stability.index.value_or(1) < 6 * each.stability.by_chance.value_or(0), each.feature
    assert not feature(checks, "price").test_unseen.defined and not feature(checks, "key").test_unseen.defined
    found = {name: feature(checks, name).colliding for name in ("price", "item", "key", "tags")}
    nothing = MetricValue.undefined("no embedding is looked up")
    assert found == {"price": nothing, "tags": nothing, **COLLIDING}


@pytest.mark.parametrize("rows_at_once", [1500, 6000])
def test_parts_do_not_matter(frames: Frames, rows_at_once: int) -> None:
    assert check(frames, rows_at_once=rows_at_once) == check(frames)


def test_equal_rows_are_counted(frames: Frames) -> None:
    copied = frames["train"].head(100)
    other_label = copied.head(40).with_columns(__label__=1 - pl.col("__label__"))
    test = pl.concat([frames["test"].head(1800), copied, other_label, copied.head(60)])
    checks = check({"train": pl.concat([frames["train"], frames["train"].head(600)]), "test": test})
    overlap = checks.overlap
    assert overlap.test_in_train.value == 200 / 2000
    assert overlap.test_in_train_with_label.value == 160 / 2000
    assert overlap.test_duplicates.value == 60 / 2000
    assert overlap.train_duplicates.value == 600 / 6600
    assert [finding.split(" rows")[0] for finding in checks.findings] == [
        "8.0% of test", "3.0% of test", "9.1% of training",
    ]  # fmt: skip


def test_a_column_that_knows_the_label_is_found(frames: Frames) -> None:
    def leak(frame: pl.DataFrame) -> pl.DataFrame:
        known = pl.col("__label__").cast(pl.Int64)
        return frame.with_columns(
            price=-pl.col("__label__") + 0.1 * pl.col("price").clip(-1, 1),
            item=2 * (pl.col("item") % 200) + known,
            tags=pl.concat_list(known + 7),
        )

    checks = check({name: leak(frame) for name, frame in frames.items()})
    for name in ("price", "item", "tags"):
        assert feature(checks, name).auc.value_or(0) > 0.95, name
        assert any(finding.startswith(f"{name} alone reaches AUC") for finding in checks.findings)
    assert feature(checks, "key").auc.value_or(1) < 0.6
    tolerant = check({name: leak(frame) for name, frame in frames.items()}, max_column_auc=1.0)
    assert all(feature(tolerant, name).auc.value == feature(checks, name).auc.value for name in ("price", "item"))


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (pl.col("price") + 2, "price", "price drifts from train to test: PSI"),
        (pl.col("item") + 40, "item", "item drifts from train to test: PSI"),
        (pl.when(pl.int_range(pl.len()) % 4 == 0).then(0).otherwise("item").alias("item"), "item", "out of vocabulary"),
        (pl.lit(64 * 5).cast(pl.Int64).alias("key"), "key", "key drifts"),
    ],
)
def test_drift_is_found_in_its_column_alone(frames: Frames, change: pl.Expr, name: str, words: str) -> None:
    checks = check({"train": frames["train"], "test": frames["test"].with_columns(change)})
    assert any(words in finding for finding in checks.findings)
    assert all(name in finding or "rows repeat" in finding for finding in checks.findings), checks.findings


def test_out_of_vocabulary_shares_are_exact(frames: Frames) -> None:
    test = frames["test"].with_columns(item=pl.when(pl.int_range(pl.len()) % 4 == 0).then(0).otherwise("item"))
    got = feature(check({"train": frames["train"], "test": test}), "item")
    assert (got.train_unseen.value, got.test_unseen.value) == (0.0, 0.25)


def test_another_rate_of_positives_is_found(frames: Frames) -> None:
    rarer = frames["test"].filter((pl.col("__label__") == 0) | (pl.int_range(pl.len()) % 2 == 0))
    (finding,) = check({"train": frames["train"], "test": rarer}).findings
    assert "of training rows are positive" in finding


def test_rows_beyond_memory_are_not_compared_and_say_so(frames: Frames) -> None:
    overlap = check(frames, max_rows_in_memory=1000).overlap
    assert all("max_rows_in_memory=1,000" in getattr(overlap, name).undefined_reason for name in vars(overlap))
    half = check(frames, max_rows_in_memory=3000).overlap
    assert half.test_in_train.defined and not half.train_duplicates.defined


def test_an_empty_split_is_undefined_not_wrong(frames: Frames) -> None:
    checks = check({"train": frames["train"], "test": frames["test"].clear()})
    assert checks.findings == () and not checks.test_rate.defined and not checks.overlap.test_in_train.defined
    assert all(not each.auc.defined and not each.stability.index.defined for each in checks.features)
