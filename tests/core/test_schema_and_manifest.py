import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import to_json
from recsys.core.manifest import CategoricalStatistics, Manifest, NumericStatistics, Split
from recsys.core.schema import MISSING_KEY, CategoricalFeature, IdEncoding, KeyType, NumericFeature, Schema
from recsys.core.specs import FeatureSpec, Pooling

SCHEMA = Schema(
    label="click",
    numeric=(NumericFeature(name="I1"),),
    categorical=(
        CategoricalFeature(name="C1"),
        CategoricalFeature(name="tags", multi_valued=True, max_length=5, pooling=Pooling.MEAN),
        CategoricalFeature(name="ip", encoding=IdEncoding.HASH, key_type=KeyType.INTEGER),
    ),
    passthrough=("session",),
)
MANIFEST = Manifest(
    dataset="sample",
    schema=SCHEMA,
    splits={
        "train": Split(
            files=("train/part-00000.parquet", "train/part-00001.parquet"), file_rows=(5, 2), num_positive=3
        ),
        "validation": Split(files=(), file_rows=(), num_positive=0),
    },
    numeric={"I1": NumericStatistics(mean=1.5, std=0.1 + 0.2, num_missing=1)},
    categorical={
        "C1": CategoricalStatistics(num_embeddings=9, num_keys=20, oov_count=3, octave_counts=(4, 2), max_length=1),
        "tags": CategoricalStatistics(num_embeddings=4, num_keys=3, oov_count=0, octave_counts=(9,), max_length=3),
        "ip": CategoricalStatistics(
            num_embeddings=None, num_keys=70, oov_count=0, octave_counts=(1, 2, 3), max_length=1
        ),
    },
    fingerprint="0123456789abcdef",
)


def passing(*names: str) -> Schema:
    return Schema(label="y", numeric=(NumericFeature(name="x"),), passthrough=names)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: CategoricalFeature(name="a", min_count=0), ("min_count=0", "'a'", "1 or more")),
        (lambda: CategoricalFeature(name="a", max_length=0), ("max_length=0", "'a'", "1 or more")),
        (lambda: Schema(label="y"), ("neither numeric nor categorical", "at least one")),
        (
            lambda: Schema(label="y", numeric=(NumericFeature(name="y"),)),
            ("['y']", "more than once", "one role"),
        ),
        (
            lambda: Schema(label="y", numeric=(NumericFeature(name="a"),), categorical=(CategoricalFeature(name="a"),)),
            ("['a']", "more than once", "one role"),
        ),
        (lambda: Schema(label="y", numeric=(NumericFeature(name="a.b"),)), ("['a.b']", "'.'", "Rename")),
        (lambda: Schema(label="y", categorical=(CategoricalFeature(name="a@b"),)), ("['a@b']", "'@'", "Rename")),
        (lambda: Schema(label="y", categorical=(CategoricalFeature(name="a__b"),)), ("['a__b']", "'__'", "Rename")),
        (lambda: passing("u", "v", "u"), ("passthrough", "['u']", "more than once")),
        (lambda: passing("u", "label"), ("passthrough", "['label']", "Rename")),
        (lambda: passing("logit", "probability"), ("passthrough", "['logit', 'probability']", "Rename")),
        (lambda: passing("__row__", "__x"), ("passthrough", "['__row__', '__x']", "begin with '__'")),
    ],
)
def test_impossible_schema_is_refused(make: Callable[[], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert all(part in str(error.value) for part in parts), error.value


def test_passthrough_may_name_a_feature_and_the_true_probability() -> None:
    assert passing("x", "bayes_probability", "session__id").passthrough == ("x", "bayes_probability", "session__id")


def test_missing_key_is_the_smallest_int64() -> None:
    assert MISSING_KEY == -9_223_372_036_854_775_808


def test_manifest_round_trip(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"]["categorical"][2]["encoding"] == "hash"


def test_rows_of_a_split_are_those_of_its_files() -> None:
    assert (MANIFEST.splits["train"].num_rows, MANIFEST.splits["validation"].num_rows) == (7, 0)


def test_feature_specs_of_the_columns() -> None:
    single, tags, hashed = MANIFEST.feature_specs()
    assert single == FeatureSpec(name="C1", embedding_dim=1, num_embeddings=9, max_length=1, octave_counts=(4, 2))
    assert single.source == "C1"
    assert (tags.pooling, tags.max_length) == (Pooling.MEAN, 5)
    assert hashed.num_embeddings is None


def _damaged(change: Callable[[dict[str, Any]], object]) -> str:
    text: dict[str, Any] = json.loads(json.dumps(_as_json()))
    change(text)
    return json.dumps(text)


def _as_json() -> dict[str, Any]:
    data = to_json(MANIFEST)
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ("manifest.json", "no such file", "pipelines.ingest")),
        ("", ("manifest.json", "not valid JSON", "ingest again")),
        (json.dumps(_as_json())[:-20], ("manifest.json", "not valid JSON", "ingest again")),
        ("[]", ("Manifest", "mapping")),
        (_damaged(lambda d: d.pop("fingerprint")), ("Manifest.fingerprint", "missing", "another version")),
        (_damaged(lambda d: d.update(extra=1)), ("Manifest.extra=1", "no such key")),
        (
            _damaged(lambda d: d["splits"]["train"].update(num_positive="3")),
            ("splits.train.num_positive='3'", "type int"),
        ),
        (_damaged(lambda d: d["schema"].update(label="C1")), ("'C1'", "more than once")),
    ],
)
def test_manifest_that_cannot_be_read(tmp_path: Path, text: str | None, parts: tuple[str, ...]) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError) as error:
        Manifest.read(tmp_path)
    assert all(part in str(error.value) for part in parts), error.value


def test_values_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MANIFEST.dataset = "other"  # type: ignore[misc]
