"""Head, torso and tail are what training look-ups say, to the nearest octave of ids."""

import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.core.manifest import CategoricalStatistics, Manifest
from recsys.core.schema import CategoricalFeature, IdEncoding, Schema
from recsys.evaluate.frequency import FrequencyClasses


def manifest(octaves: tuple[int, ...], **options: object) -> Manifest:
    feature = CategoricalFeature(name="item", **options)  # type: ignore[arg-type]
    known = CategoricalStatistics(num_embeddings=100, num_keys=100, oov_count=0, octave_counts=octaves, max_length=1)
    return Manifest(
        dataset="made",
        schema=Schema(label="y", categorical=(feature,)),
        splits={},
        numeric={},
        categorical={"item": known},
        fingerprint="",
    )


@pytest.mark.parametrize(
    ("octaves", "torso", "tail"),
    [
        ((50, 30, 10, 10), 2, 8),  # exactly half, exactly nine tenths
        ((49, 1, 40, 10), 4, 8),
        ((100,), 2, 2),
        ((10, 10, 10, 10), 4, 16),
        ((0, 0, 0), 8, 8),
        ((), 2, 2),
    ],
)
def test_borders_by_training_look_ups(octaves: tuple[int, ...], torso: int, tail: int) -> None:
    classes = FrequencyClasses.of(manifest(octaves), "item")
    assert (classes.torso, classes.tail) == (torso, tail)


def test_ids_get_their_class_in_order() -> None:
    classes = FrequencyClasses.of(manifest((50, 30, 10, 10), min_count=3), "item")
    got = classes.of_ids(pl.Series([0, 1, 2, 7, 8, 99]))
    head, torso, tail, unseen = classes.names
    assert got.to_list() == [unseen, head, torso, torso, tail, tail]
    assert got.name == "frequency of item" and got.dtype == pl.Enum(classes.names)
    assert head == "head: ids 1 … 1, 50% of training" and unseen == "unseen in training or below min_count=3"


@pytest.mark.parametrize(
    ("feature", "options", "words"),
    [
        ("user", {}, r"no such categorical feature; there are \['item'\]"),
        ("item", {"multi_valued": True}, "a row has several ids"),
        ("item", {"encoding": IdEncoding.HASH}, "hashed ids do not rank"),
    ],
)
def test_features_without_a_ranked_id_are_refused(feature: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FrequencyClasses.of(manifest((1,), **options), feature)
