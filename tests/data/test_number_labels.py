"""Labels that are numbers: kept exactly, their statistics of train alone, bad ones told with file, row and value."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import build_config
from recsys.core.labels import LabelKind
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, Schema
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.holdout import hold_out
from recsys.data.infer import propose
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.look import look
from recsys.data.movielens import MovieLensDataset
from recsys.data.table import TableDataset

LABELS = [2.5 * (i % 7) - 4 + 1000 * (i % 3) for i in range(60)]


def table(path: Path, text: str, **changes: object) -> TableDataset:
    path.write_text(text)
    values: dict[str, object] = {
        "files": (str(path),),
        "label": "y",
        "label_kind": LabelKind.NUMBER,
        "categorical": (CategoricalFeature(name="item"),),
        "split": SplitConfig(method=SplitMethod.ORDER),
    }
    return TableDataset(**{**values, **changes})  # type: ignore[arg-type]


def lines(labels: list[object]) -> str:
    return "y,item\n" + "".join(f"{label},i{i % 4}\n" for i, label in enumerate(labels))


def labels_of(folder: Path, split: str) -> list[float]:
    options = LoaderOptions(batch_size=7, shuffle=False, drop_last=False)
    return [label for batch in ParquetLoader(folder, split, options).epoch(0) for label in batch.labels.tolist()]


@pytest.mark.parametrize("rows_per_file", [7, 1000])
def test_labels_come_through_and_statistics_are_of_train(tmp_path: Path, rows_per_file: int) -> None:
    options = IngestOptions(rows_per_file=rows_per_file, chunk_rows=5)
    manifest = ingest(table(tmp_path / "raw.csv", lines([*LABELS])), tmp_path / "data", options=options)
    assert labels_of(tmp_path / "data", "train") == LABELS[:48]
    assert labels_of(tmp_path / "data", "validation") + labels_of(tmp_path / "data", "test") == LABELS[48:]
    known = Manifest.read(tmp_path / "data").label
    assert known is not None and known == manifest.label and known.count == 48
    assert (known.mean, known.std) == pytest.approx((np.mean(LABELS[:48]), np.std(LABELS[:48])), rel=1e-12)
    assert manifest.splits["train"].num_positive == sum(label == 1 for label in LABELS[:48])


def test_clicks_have_no_statistics(tmp_path: Path) -> None:
    dataset = table(tmp_path / "raw.csv", lines([i % 2 for i in range(60)]), label_kind=LabelKind.CLICK)
    assert ingest(dataset, tmp_path / "data", options=IngestOptions()).label is None


def test_held_out_rows_keep_the_statistics(tmp_path: Path) -> None:
    ingest(table(tmp_path / "raw.csv", lines([*LABELS])), tmp_path / "data", options=IngestOptions())
    (tmp_path / "held").mkdir()
    held = hold_out(tmp_path / "data", tmp_path / "held", 0.25, in_order=True, seed=1)
    assert held.label == Manifest.read(tmp_path / "data").label
    assert labels_of(tmp_path / "held", "validation") == LABELS[36:48]


@pytest.mark.parametrize(
    ("label", "shown"),
    [("many", "'many'"), ("", "None"), ("inf", "'inf'"), ("-inf", "'-inf'"), ("nan", "'nan'"), ("1e39", "'1e39'")],
)
def test_bad_labels_are_told(tmp_path: Path, label: str, shown: str) -> None:
    dataset = table(tmp_path / "raw.csv", lines([*LABELS[:30], label, *LABELS[31:]]))
    with pytest.raises(
        DataError, match=rf"raw.csv, row 31 .*column 'y': {shown} is not a label. Labels must be finite"
    ):
        ingest(dataset, tmp_path / "data", options=IngestOptions())
    ingest(dataset, tmp_path / "left", options=IngestOptions(max_rejected=0.05))
    assert sum(Manifest.read(tmp_path / "left").splits[s].num_rows for s in ("train", "validation", "test")) == 59


def test_a_number_where_clicks_are_expected_says_what_to_set(tmp_path: Path) -> None:
    dataset = table(tmp_path / "raw.csv", lines([*LABELS]), label_kind=LabelKind.CLICK)
    with pytest.raises(DataError, match=r"'-4.0' is not a label.*set dataset.label_kind to number"):
        ingest(dataset, tmp_path / "data", options=IngestOptions())


@pytest.mark.parametrize("label", [0.0, 0.1, 12345.678])
def test_one_label_for_all_training_rows_is_refused(tmp_path: Path, label: float) -> None:
    dataset = table(tmp_path / "raw.csv", lines([*[label] * 48, *LABELS[48:]]))
    with pytest.raises(DataError, match=r"train split .* has the label .* on all of its 48 rows, so there is nothing"):
        ingest(dataset, tmp_path / "data", options=IngestOptions())


@pytest.mark.parametrize(("step", "spread"), [(10, "0"), (1000, r"\S+")])
def test_labels_that_float32_hardly_tells_apart_are_refused(tmp_path: Path, step: int, spread: str) -> None:
    labels: list[object] = [1_700_000_000 + i % 3 * step for i in range(60)]
    with pytest.raises(
        DataError, match=rf"around 1,700,00.,..., where float32.* steps of 128: .* deviation is {spread},"
    ):
        ingest(table(tmp_path / "raw.csv", lines(labels)), tmp_path / "data", options=IngestOptions())


def test_years_and_large_numbers_that_spread_are_labels(tmp_path: Path) -> None:
    for number, labels in enumerate(
        ([2019 + i % 3 for i in range(60)], [1_700_000_000 + i * 10**6 for i in range(60)])
    ):
        dataset = table(tmp_path / f"{number}.csv", lines([*labels]))
        assert ingest(dataset, tmp_path / str(number), options=IngestOptions()).label is not None


def test_booleans_and_texts_of_truth_are_numbers(tmp_path: Path) -> None:
    texts: list[object] = [["true", "False", "3"][i % 3] for i in range(60)]
    ingest(table(tmp_path / "raw.csv", lines(texts)), tmp_path / "data", options=IngestOptions())
    assert labels_of(tmp_path / "data", "train")[:3] == [1.0, 0.0, 3.0]


def test_a_column_of_predictions_cannot_be_kept_beside_them() -> None:
    item = (CategoricalFeature(name="item"),)
    with pytest.raises(ConfigError, match=r"passthrough column\(s\) \['prediction'\]"):
        Schema(label="y", label_kind=LabelKind.NUMBER, categorical=item, passthrough=("prediction", "logit"))
    with pytest.raises(ConfigError, match=r"passthrough column\(s\) \['logit'\]"):
        Schema(label="y", categorical=item, passthrough=("prediction", "logit"))


def test_a_yaml_is_proposed_for_numbers(tmp_path: Path) -> None:
    raw = pl.DataFrame({"stars": [1 + i % 5 for i in range(80)], "item": [f"i{i % 9}" for i in range(80)]})
    raw.write_csv(tmp_path / "raw.csv")
    text = propose(look(tmp_path / "raw.csv", 1000), [str(tmp_path / "raw.csv")], label="stars", name="mine")
    assert "1 to 5, 5 different numbers" in text
    dataset = build_config(TableDataset, yaml.safe_load(text), key="dataset")
    assert (dataset.label, dataset.label_kind) == ("stars", LabelKind.NUMBER)
    assert ingest(dataset, tmp_path / "data", options=IngestOptions()).label is not None


def test_the_stars_of_movielens(data_folder: Path, tmp_path: Path) -> None:
    ratings, users, items = (str(data_folder / "ml-100k" / f"u.{name}.zst") for name in ("data", "user", "item"))
    dataset = MovieLensDataset(ratings=ratings, users=users, items=items, label_kind=LabelKind.NUMBER)
    manifest = ingest(dataset, tmp_path, options=IngestOptions())
    stars = [label for split in manifest.splits for label in labels_of(tmp_path, split)]
    # What the data set's own README and many papers say: 100,000 ratings with a mean of 3.52986.
    assert [stars.count(star) for star in (1, 2, 3, 4, 5)] == [6110, 11370, 27145, 34174, 21201]
    assert math.fsum(stars) / len(stars) == pytest.approx(3.52986)
