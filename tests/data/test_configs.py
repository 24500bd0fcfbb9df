"""Every yaml in `conf/dataset` builds a data set, and its keys are all of that class's fields."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from recsys.core.errors import ConfigError
from recsys.core.jsonable import build_config
from recsys.core.schema import IdEncoding, KeyType
from recsys.core.specs import Pooling
from recsys.data.dataset import Dataset, SplitConfig, SplitMethod
from recsys.data.table import FileKind, TableDataset

FOLDER = Path(__file__).parents[2] / "conf" / "dataset"
ROWS = {
    "files": ["x.csv"],
    "label": "clicked",
    "numeric": [{"name": "price", "transform": "log1p"}],
    "categorical": [
        {"name": "user", "key_type": "integer", "encoding": "hash"},
        {"name": "tags", "multi_valued": True, "pooling": "mean"},
    ],
}
USER_GIVES: dict[str, dict[str, Any]] = {
    "csv": ROWS,
    "parquet": ROWS,
    "interactions": {"train": {"files": ["train.txt"]}, "test": {"files": ["test.txt"]}},
}


def values_of(path: Path) -> dict[str, Any]:
    """The yaml's values, with what a user must fill in."""
    loaded = OmegaConf.load(path)
    merged = OmegaConf.merge(loaded, USER_GIVES.get(path.stem, {}))
    return cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True, throw_on_missing=True))


def build(values: dict[str, Any]) -> Dataset:
    return build_config(Dataset, values, key="dataset")  # type: ignore[type-abstract]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_builds(path: Path) -> None:
    values = values_of(path)
    dataset = build(values)
    assert dataset.name == path.stem
    assert isinstance(dataset.inputs(), tuple)
    names = {field.name for field in dataclasses.fields(dataset)}  # type: ignore[arg-type]
    # The template shows every field but the files of a given split, which its last comment explains.
    assert names - set(values) <= {"train", "validation", "test", "separator", "columns", "quoted"}


def test_a_users_table() -> None:
    dataset = build(values_of(FOLDER / "csv.yaml"))
    assert isinstance(dataset, TableDataset) and dataset.kind is FileKind.TEXT
    user, tags = dataset.categorical
    assert (user.key_type, user.encoding) == (KeyType.INTEGER, IdEncoding.HASH)
    assert tags.multi_valued and tags.pooling is Pooling.MEAN
    assert dataset.split == SplitConfig(method=SplitMethod.SHUFFLE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seperator": ";"}, r"dataset.seperator=';': no such key. Did you mean 'separator'"),
        ({"split": {"method": "random"}}, r"dataset.split.method='random': must be one of"),
        ({"split": {"train": 0.5}}, r"must add up to 1"),
        ({"files": "x.csv"}, r"dataset.files='x.csv': must be a list"),
        ({"categorical": [{"name": "a", "min_count": 0}]}, r"min_count=0 of feature 'a'"),
        ({"categorical": [{"nane": "a"}]}, r"dataset.categorical\[0\].nane"),
    ],
)
def test_wrong_values_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({**values_of(FOLDER / "csv.yaml"), **change})
