"""`ce`: chunks of hashed rows, each with rows of its own, in as many parameters as `hash`."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.ce import CEConfig, ChunkRemap, chunk_widths
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.hash import HashConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import SIZES, check_budgets, features_of
from tests.embeddings.test_dense_parity import CHECKS, KINDS, features
from tests.embeddings.test_dense_parity import SIZES as BAGS
from tests.embeddings.uniform import assert_uniform
from tests.ops import splitmix64

ONE = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=10_000)]
EXTREMES = [2**63 - 1, -(2**63), -1, 0, 2**53 + 1]


@pytest.mark.parametrize(
    ("width", "chunks", "expected"),
    [
        (16, 4, [4, 4, 4, 4]),
        (10, 4, [3, 3, 2, 2]),
        (39, 4, [10, 10, 10, 9]),
        (1, 4, [1]),
        (3, 4, [1, 1, 1]),
        (7, 1, [7]),
    ],
)
def test_chunks_are_as_equal_as_can_be(width: int, chunks: int, expected: list[int]) -> None:
    assert chunk_widths(width, chunks) == expected


def test_plan_worked_out_by_hand() -> None:
    """100 rows of width 10 = 3 + 3 + 2 + 2: two tables, two blocks of 100 rows in each."""
    feature = FeatureSpec(name="a", embedding_dim=10, num_embeddings=10_000)
    plan = CEConfig(budget_mib=100 * 40 / 2**20).plan([feature])
    (entry,) = plan.features
    assert [(t.name, t.num_embeddings, t.embedding_dim) for t in plan.tables] == [
        ("table_a_chunks_of_2", 200, 2),
        ("table_a_chunks_of_3", 200, 3),
    ]
    assert entry.tables == ("table_a_chunks_of_3",) * 2 + ("table_a_chunks_of_2",) * 2
    assert entry.remap.params["num_rows"] == 100 and entry.remap.params["starts"] == [0, 100, 0, 100]
    assert plan.num_bytes == 4000


def test_golden_rows() -> None:
    remap = CEConfig(compression_ratio=100).plan(ONE).features[0].remap
    assert remap.params["num_rows"] == 100 and remap.params["starts"] == [0, 100, 200, 300]
    assert remap.params["salts"] == [splitmix64.salt("a", chunk, 0) for chunk in range(4)]
    rows = remap.build()(torch.tensor([0, 1, 9_999, 2**63 - 1]))
    assert rows.tolist() == GOLDEN


GOLDEN = [
    [0, 5, 72, 46],
    [188, 141, 185, 187],
    [229, 270, 214, 213],
    [302, 305, 345, 322],
]
"""By chunk; from the row hash in Python integers."""


@pytest.mark.parametrize("width", [1, 4, 10, 16])
@pytest.mark.parametrize("ratio", [1, 1.01, 3, 50])
def test_takes_the_bytes_of_hash(width: int, ratio: float) -> None:
    for sizes in SIZES:
        specs = features_of(sizes, width, counted=False, linear=False)
        if len(specs) * ratio > sum(sizes):
            continue  # below the floor of one row for every feature
        assert CEConfig(compression_ratio=ratio).plan(specs).num_bytes == (
            HashConfig(compression_ratio=ratio).plan(specs).num_bytes
        )


def test_a_feature_that_would_not_shrink_stays_full() -> None:
    assert CEConfig().plan(ONE).features[0].remap.target.endswith("Identity")
    assert CEConfig(compression_ratio=1.001).plan(ONE).features[0].remap.target.endswith("ChunkRemap")


def test_budgets_are_met_or_the_floor_is_told() -> None:
    check_budgets(lambda ratio: CEConfig(compression_ratio=ratio))


def test_chunks_hash_evenly_and_independently() -> None:
    remap = CEConfig(compression_ratio=200).plan(ONE).features[0].remap.build()
    rows = remap(torch.arange(10_000)) - torch.tensor([0, 50, 100, 150]).unsqueeze(1)
    for chunk in rows:
        assert_uniform(chunk, 50)
    for first in range(4):
        for second in range(first):
            assert_uniform(rows[first] * 50 + rows[second], 2500)


def test_ids_that_share_one_chunk_rarely_share_the_rest() -> None:
    rows = CEConfig(compression_ratio=100).plan(ONE).features[0].remap.build()(torch.arange(10_000))
    assert len(rows[0].unique()) == 100
    assert len(torch.unique(rows, dim=1).t()) > 9_990, "hash would tell only 100 embeddings apart"


@pytest.mark.parametrize("check_kind", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_values_and_gradients_equal_the_dense_reference(kind: str, check_kind: str, chunks: int) -> None:
    plan = CEConfig(compression_ratio=3, num_chunks=chunks).plan(features(kind, width=6, linear=True))
    CHECKS[check_kind](plan, reference.random_bags(BAGS, 9, seed=0, max_length=KINDS[kind][0]))


def test_any_int64_is_an_id_of_a_hashed_feature() -> None:
    spec = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1, 2, 4))
    plan = CEConfig(compression_ratio=2).plan([spec])
    bags = {"ip": [[key] for key in EXTREMES]}
    CHECKS["pooled"](plan, bags)
    assert plan.num_bytes == 4 * 8 * 4


def test_look_ups_go_through_one_inner_collection() -> None:
    collection = PlannedEmbeddingBagCollection(CEConfig(compression_ratio=3).plan(features("multi-valued", width=16)))
    assert collection.unpooled is None


def test_rows_needed_tell_the_tables_size_also_where_nothing_is_allocated() -> None:
    with torch.device("meta"):
        remap = ChunkRemap(num_rows=7, salts=[1, 2], starts=[0, 7])
    assert remap.rows_needed() == [7, 14]


def test_no_chunks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_chunks=0: must be 1 or more"):
        CEConfig(num_chunks=0)
