"""Checks of the data find what was planted, count exactly, and are silent about sound data."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pytest

from recsys.core.labels import LabelKind, LabelStatistics
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


def schema_of(label: LabelStatistics | None) -> Schema:
    return Schema(
        label="y",
        label_kind=LabelKind.CLICK if label is None else LabelKind.NUMBER,
        numeric=(NumericFeature(name="price"),),
        categorical=(
            CategoricalFeature(name="item"),
            CategoricalFeature(name="key", encoding=IdEncoding.HASH),
            CategoricalFeature(name="tags", multi_valued=True),
        ),
    )


def check(
    frames: Frames, *, rows_at_once: int = 997, label: LabelStatistics | None = None, **options: object
) -> DataChecks:
    def read(split: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        return frames[split].select(columns).iter_slices(rows_at_once)

    config = EvaluateConfig(**options)  # type: ignore[arg-type]
    return check_data(manifest_of(frames, label), read, config, colliding=COLLIDING)


def manifest_of(frames: Frames, label: LabelStatistics | None) -> Manifest:
    sizes = {"item": 401, "key": None, "tags": 31}
    return Manifest(
        dataset="made",
        schema=schema_of(label),
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
        label=label,
    )


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


def numbered(num_rows: int, seed: int, *, shift: float = 0.0) -> pl.DataFrame:
    """`sound` rows whose label is a number that depends on price and item."""
    frame, noise = sound(num_rows, seed), np.random.default_rng(seed + 100).normal(0, 0.5, num_rows)
    label = 3 + shift + 0.8 * frame["price"].to_numpy() + 0.5 * (frame["item"].to_numpy() % 2) + noise
    return frame.with_columns(pl.Series("__label__", label.astype(np.float32)))


def of_train(frame: pl.DataFrame) -> LabelStatistics:
    label = frame["__label__"].to_numpy().astype(np.float64)
    return LabelStatistics(count=frame.height, mean=float(label.mean()), std=float(label.std()))


def test_number_labels_are_correlated_with_features() -> None:
    train, test = numbered(20_000, 1), numbered(5_000, 2)
    checks = check({"train": train, "test": test}, label=of_train(train))
    assert checks.findings == () and checks.numbers
    price = feature(checks, "price")
    expected = np.corrcoef(test["price"].to_numpy(), test["__label__"].to_numpy())[0, 1]
    assert price.correlation.value == pytest.approx(abs(expected), rel=1e-5)
    assert price.auc.undefined_reason == "labels are numbers"
    # An id says the mean label of its training rows.
    known = train.group_by("item").agg(pl.col("__label__").sum().alias("sum"), pl.len())
    base = float(train["__label__"].mean())  # type: ignore[arg-type]
    joined = test.join(known, on="item", how="left")
    score = (joined["sum"].fill_null(0) + base) / (joined["len"].fill_null(0) + 1)
    expected = np.corrcoef(score.to_numpy(), joined["__label__"].to_numpy())[0, 1]
    assert feature(checks, "item").correlation.value == pytest.approx(expected, rel=1e-4)
    assert checks.train_rate.value == pytest.approx(base)
    assert checks.test_rate.value == pytest.approx(float(test["__label__"].mean()), rel=1e-5)  # type: ignore[arg-type]


def test_a_leak_of_numbers_and_a_shift_are_found() -> None:
    train, test = numbered(20_000, 1), numbered(5_000, 2, shift=0.5)
    train, test = (f.with_columns((pl.col("__label__") * -2 + 1).alias("price")) for f in (train, test))
    checks = check({"train": train, "test": test}, label=of_train(train))
    leak, shift = (next(f for f in checks.findings if part in f) for part in ("price alone", "labels average"))
    assert "has correlation 1.0000 with the label" in leak
    assert "in training and" in shift and "standard deviations apart" in shift


def test_clicks_have_no_correlation(frames: Frames) -> None:
    checks = check(frames)
    assert feature(checks, "price").correlation.undefined_reason == "labels are clicks" and not checks.numbers
