"""Real rows: counts that are known from elsewhere, and encoding alike in ingest and by the scripted encoder."""

import csv
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import zstandard

from recsys.core.jsonable import to_json
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, Schema
from recsys.data.criteo import CriteoDataset
from recsys.data.dataset import SPLIT_NAMES, SplitConfig, SplitMethod
from recsys.data.encoder import load_encoder
from recsys.data.ingest import RAW_SAMPLE_ROWS, IngestOptions, ingest
from recsys.data.libfm import LibfmDataset
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors, read_raw
from recsys.data.readers import reader_for
from recsys.data.table import TableDataset
from recsys.export import border
from tests.data.test_configs import FOLDER, build, values_of

OPTIONS = IngestOptions()
SCORE = Path(__file__).resolve().parents[2] / "tools" / "serve_example" / "score.py"
FRAPPE_FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")


@pytest.fixture(scope="module")
def frappe(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = data_folder / "frappe", tmp_path_factory.mktemp("frappe")
    names = ("frappe.train.reconstructed", "frappe.validation", "frappe.test")
    train, validation, test = (str(source / f"{name}.libfm.zst") for name in names)
    ingest(LibfmDataset(train=train, validation=validation, test=test, fields=FRAPPE_FIELDS), folder, options=OPTIONS)
    return folder


@pytest.fixture(scope="module")
def criteo(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("criteo")
    path = str(data_folder / "criteo-sample" / "head10k.tsv.zst")
    ingest(CriteoDataset(path=path, split=SplitConfig(method=SplitMethod.ORDER)), folder, options=OPTIONS)
    return folder


def test_frappe_counts(frappe: Path) -> None:
    manifest = Manifest.read(frappe)
    assert [manifest.splits[split].num_rows for split in SPLIT_NAMES] == [202_027, 57_722, 28_860]
    assert [split.num_positive / split.num_rows for split in manifest.splits.values()] == pytest.approx(
        [1 / 3] * 3, abs=0.005
    )
    # FuxiCTR counts 5,389 features on the same files: the values of train and one out-of-vocabulary id a field.
    assert sum(known.num_embeddings or 0 for known in manifest.categorical.values()) == 5_389
    known = {name: (known.num_embeddings or 0) - 1 for name, known in manifest.categorical.items()}
    assert {name: size for name, size in known.items() if name != "item"} == {
        "user": 954, "daytime": 7, "weekday": 7, "isweekend": 2, "homework": 3, "cost": 2, "weather": 9, "country": 80,
        "city": 233,
    }  # fmt: skip


def test_frappe_feeds_every_row_once(frappe: Path) -> None:
    loader = ParquetLoader(frappe, "train", LoaderOptions(drop_last=False, seed=1))
    positives = sum(int(batch.labels.sum()) for batch in loader.epoch(0))
    assert positives == Manifest.read(frappe).splits["train"].num_positive == 67_604


def test_criteo_counts(criteo: Path) -> None:
    manifest = Manifest.read(criteo)
    assert [split.num_rows for split in manifest.splits.values()] == [8_000, 1_000, 1_000]
    assert sum(split.num_positive for split in manifest.splits.values()) / 10_000 == pytest.approx(0.218, abs=5e-4)
    assert len(manifest.schema.numeric) == 13 and len(manifest.schema.categorical) == 26


@pytest.mark.parametrize("name", ["criteo", "frappe"])
def test_scripted_encoder_agrees_with_ingest(name: str, request: pytest.FixtureRequest) -> None:
    assert_served_as_ingested(request.getfixturevalue(name))


@pytest.mark.parametrize("name", ["taobao", "amazon_beauty"])
def test_scripted_encoder_agrees_with_ingest_on_histories(name: str, data_folder: Path, tmp_path: Path) -> None:
    ingest(build(values_of(FOLDER / f"{name}.yaml")), tmp_path, options=OPTIONS)
    assert_served_as_ingested(tmp_path)


def assert_served_as_ingested(folder: Path) -> None:
    """The raw test rows, encoded as an exported file does it, are what ingest wrote."""
    schema, sample = Manifest.read(folder).schema, pl.read_parquet(folder / "raw_sample.parquet")
    test = pl.read_parquet(folder / "test" / "*.parquet").head(RAW_SAMPLE_ROWS)
    assert sample["__row__"].equals(test["__row__"]) and sample.height == test.height
    assert_encoded(torch.jit.script(load_encoder(folder))(border_tensors(sample, schema)), test, schema)


def assert_encoded(found: Sequence[Any], test: pl.DataFrame, schema: Schema) -> None:
    dense, ids, offsets = found
    for i, numeric in enumerate(schema.numeric):
        assert torch.equal(dense[:, i], test[numeric.name].to_torch())
    for values, offset, feature in zip(ids, offsets, schema.categorical, strict=True):
        column = test[feature.name]
        if feature.multi_valued:
            assert torch.equal(offset.diff(), column.list.len().cast(pl.Int64).to_torch())
            column = column.filter(column.list.len() > 0).explode()
        assert torch.equal(values, column.to_torch())


def rows_of_text(path: Path, separator: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Of a file as it was published, without this project."""
    opened = (
        zstandard.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".zst" else path.open(newline="")
    )
    with opened as file:
        return list(csv.DictReader(file, columns or None, delimiter=separator))


def rows_of_libfm(path: Path) -> list[dict[str, str]]:
    with zstandard.open(path, "rt") as file:
        lines = [line.split()[1:] for line in file]
    return [dict(zip(FRAPPE_FIELDS, (value.partition(":")[0] for value in line), strict=True)) for line in lines]


RAW: dict[str, Callable[[Path, Sequence[str]], list[dict[str, str]]]] = {
    "criteo_head10k": lambda data, names: rows_of_text(data / "criteo-sample/head10k.tsv.zst", "\t", names),
    "avazu_sample": lambda data, _: rows_of_text(data / "avazu-sample/head500.csv.zst", ","),
    "ali_ccp_sample": lambda data, _: rows_of_text(data / "ali-ccp-sample/ali_ccp_test_sample.csv", ","),
    "frappe": lambda data, _: rows_of_libfm(data / "frappe/frappe.test.libfm.zst"),
}
"""Rows of a data set that end with its test rows, as text."""


@pytest.mark.parametrize("name", RAW)
def test_rows_as_published_are_encoded_as_ingest_did(name: str, data_folder: Path, tmp_path: Path) -> None:
    """What a client makes of a file with `csv`, `float` and `xxhash`, and the encoder of an exported file of that."""
    ingest(build(values_of(FOLDER / f"{name}.yaml")), tmp_path, options=OPTIONS)
    manifest = Manifest.read(tmp_path)
    schema, total = manifest.schema, sum(split.num_rows for split in manifest.splits.values())
    test = pl.read_parquet(tmp_path / "test" / "*.parquet")
    rows = RAW[name](data_folder, ("label", *schema.raw_columns))
    ending = total - len(rows)
    client = runpy.run_path(str(SCORE))["tensors_of"]
    described = to_json({"schema": schema, "inputs": border.border_tensors(schema)})
    raw = client([rows[row - ending] for row in test["__row__"].to_list()], described)
    encoder = torch.jit.script(load_encoder(tmp_path))
    assert_encoded(encoder(raw), test, schema)


def test_scoring_reads_the_raw_file_as_ingest_did(criteo: Path, data_folder: Path) -> None:
    schema = Manifest.read(criteo).schema
    columns = ("label", *(f.name for f in schema.numeric), *(f.name for f in schema.categorical))
    source = data_folder / "criteo-sample" / "head10k.tsv.zst"
    rows = pl.concat(read_raw(source, schema, reader_for(source, schema, columns=columns), chunk_rows=3_000))
    assert rows["__row__"].to_list() == list(range(10_000)) and "label" not in rows.columns
    sample = pl.read_parquet(criteo / "raw_sample.parquet")
    assert rows.tail(1_000).equals(sample.select(rows.columns))


def test_avazu_head_as_a_table(data_folder: Path, tmp_path: Path) -> None:
    """Its `id` exceeds signed 64 bits, so it must be text."""
    names = ("id", "C1", "banner_pos", "site_id", "site_category", "device_type", "C14", "C21")
    dataset = TableDataset(
        files=(str(data_folder / "avazu-sample" / "head500.csv.zst"),),
        label="click",
        categorical=tuple(CategoricalFeature(name=name) for name in names),
        passthrough=("hour",),
    )
    manifest = ingest(dataset, tmp_path, options=OPTIONS)
    assert [split.num_rows for split in manifest.splits.values()] == [400, 50, 50]
    assert manifest.categorical["id"].num_keys == 400


@pytest.mark.parametrize(
    ("name", "rows"),
    [("avazu_sample", (400, 50, 50)), ("ali_ccp_sample", (100, 50, 50)), ("movielens", (80_000, 10_000, 10_000))],
)
def test_data_sets_of_other_forms(data_folder: Path, tmp_path: Path, name: str, rows: tuple[int, ...]) -> None:
    """As their yamls say; the scripted encoder agrees with ingest on the raw test rows."""
    manifest = ingest(build(values_of(FOLDER / f"{name}.yaml")), tmp_path, options=OPTIONS)
    assert [split.num_rows for split in manifest.splits.values()] == pytest.approx(rows, rel=0.01)
    assert_served_as_ingested(tmp_path)


def test_movielens_is_what_its_readme_says(data_folder: Path, tmp_path: Path) -> None:
    manifest = ingest(build(values_of(FOLDER / "movielens.yaml")), tmp_path, options=OPTIONS)
    assert sum(split.num_positive for split in manifest.splits.values()) == 55_375
    assert manifest.categorical["occupation"].num_keys <= 21 and manifest.categorical["genres"].num_keys <= 19
