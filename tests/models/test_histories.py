"""Targets, histories and time gaps: found among the columns and the embeddings, refused where something is missing."""

from dataclasses import replace

import pytest

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Pooling, Read
from recsys.models.dare import DAREConfig
from recsys.models.din import DINConfig
from recsys.models.histories import History, locate_histories, split_columns, without_extras
from tests.models.world import outputs_of

HIST_ITEM = Read(name="hist_item", source="hist_item", pooling=Pooling.MEAN, max_length=9)
ITEM = FeatureSpec(name="item", embedding_dim=1, num_embeddings=8, max_length=1, also=(HIST_ITEM,))
USER = FeatureSpec(name="user", embedding_dim=1, num_embeddings=5, max_length=1)
GAP = FeatureSpec(name="hist_gap", embedding_dim=1, num_embeddings=6, max_length=9)
TAGS = FeatureSpec(name="tags", embedding_dim=1, num_embeddings=3, max_length=4)
COLUMNS = [USER, ITEM, GAP, TAGS]


def test_columns_by_their_part() -> None:
    targets, gaps, others = split_columns(COLUMNS, time_gaps="hist_gap", model="m")
    assert targets == [replace(ITEM, also=(replace(HIST_ITEM, pooling=Pooling.NONE),))]
    assert gaps == [replace(GAP, pooling=Pooling.NONE)]
    assert others == [USER, TAGS]
    assert split_columns(COLUMNS, time_gaps="", model="m").others == [USER, GAP, TAGS]


def test_the_target_is_found_where_the_history_owns_the_vocabulary() -> None:
    also = (Read(name="item", source="item", max_length=1), Read(name="last", source="last", max_length=1))
    owned = FeatureSpec(name="hist_item", embedding_dim=1, num_embeddings=8, max_length=9, also=also)
    (target,), _, _ = split_columns([owned], time_gaps="", model="m")
    assert [(read.name, read.pooling, read.max_length) for read in target.reads] == [
        ("item", Pooling.SUM, 1),
        ("hist_item", Pooling.NONE, 9),
        ("last", Pooling.SUM, 1),
    ]


def test_two_attributes_of_one_vocabulary_have_a_history_each() -> None:
    first = Read(name="hist_first", source="hist_first", pooling=Pooling.MEAN, max_length=9)
    also = (
        Read(name="second", source="second", max_length=1),
        first,
        Read(name="hist_second", source="hist_second", pooling=Pooling.MEAN, max_length=9),
        Read(name="third", source="third", max_length=1),
    )
    attributes = FeatureSpec(name="first", embedding_dim=1, num_embeddings=8, max_length=1, also=also)
    (target,), _, _ = split_columns([attributes], time_gaps="", model="m")
    names = [read.name for read in target.reads]
    assert names == ["first", "hist_first", "second", "hist_second", "third"]
    assert [read.pooling is Pooling.NONE for read in target.reads] == [False, True, False, True, False]
    assert [read.name for read in without_extras(target).reads] == names[:4]
    features = outputs_of(DAREConfig(embedding_dim=4, attention_dim=2, time_gaps="").features([attributes]))
    found = locate_histories(features, time_gaps="", model="m")
    assert [(history.name, history.target, history.width) for history in found] == [
        ("hist_first__attention", 0, 2),
        ("hist_second__attention", 2, 2),
        ("hist_first__representation", 4, 4),
        ("hist_second__representation", 8, 4),
    ]
    shorter = replace(attributes, also=(also[0], first, replace(also[2], max_length=5)))
    with pytest.raises(ConfigError, match=r"max_length=5 of feature 'hist_second'"):
        split_columns([shorter], time_gaps="", model="m")


def test_places_among_what_a_head_reads() -> None:
    features = outputs_of(DINConfig(embedding_dim=4, time_gaps="hist_gap").features(COLUMNS))
    assert [output.name for output in features] == ["item", "hist_item", "hist_gap", "user", "tags"]
    assert locate_histories([USER, *features], time_gaps="hist_gap", model="m") == [
        History("hist_item", sequence=0, target=1, width=4),
        History("hist_gap", sequence=1, target=-1, width=4),
    ]


def test_dare_embeds_targets_histories_and_gaps_twice() -> None:
    features = DAREConfig(embedding_dim=8, attention_dim=2).features(COLUMNS)
    assert [(output.name, output.embedding_dim) for output in outputs_of(features)] == [
        ("item__attention", 2),
        ("hist_item__attention", 2),
        ("hist_gap__attention", 2),
        ("item__representation", 8),
        ("hist_item__representation", 8),
        ("hist_gap__representation", 8),
        ("user", 8),
        ("tags", 8),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([USER, GAP], r"model m .* among \['user', 'hist_gap'\] has a history\. Declare one .*vocabulary: item"),
        ([ITEM, USER], r"model\.time_gaps='hist_gap': .* features are \['item', 'hist_item', 'user'\]"),
        ([ITEM, replace(GAP, max_length=1)], r"model\.time_gaps='hist_gap'"),
        ([ITEM, replace(GAP, max_length=7)], r"max_length=7 of feature 'hist_gap'.*'hist_item', which keeps 9"),
        (
            [replace(ITEM, also=(HIST_ITEM, replace(HIST_ITEM, name="bought", source="bought"))), GAP],
            r"\['hist_item', 'bought'\] share the vocabulary of \['item'\]",
        ),
    ],
)
def test_columns_without_a_usable_history(columns: list[FeatureSpec], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_columns(columns, time_gaps="hist_gap", model="m")


def test_another_order_is_refused() -> None:
    item, history, gap, *_ = outputs_of(DINConfig(time_gaps="hist_gap").features(COLUMNS))
    for features in ([history, item, gap], [item, gap, history]):
        with pytest.raises(ConfigError, match=r"'hist_item' follows none\. Keep the order"):
            locate_histories(features, time_gaps="hist_gap", model="m")
