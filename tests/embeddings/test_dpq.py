"""Tables trained through codebooks: values by hand, the penalty, what is served, budgets, and training on sessions."""

import math
from dataclasses import replace
from typing import cast

import pytest
import torch

from recsys.core.callback import TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.specs import FeatureSpec, Init, Pooling
from recsys.embeddings.codebook_training import TrainCodebooks
from recsys.embeddings.codes import code_sizes, codes_bytes, codes_plan
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.dpq import DPQConfig, NearestCentroids
from recsys.embeddings.frozen import build_frozen, parts_of
from recsys.embeddings.mgqe import HeadTailCentroids, HeadTailCodesRemap, MGQEConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.test_codebook_training import OneRank

FEATURES = [
    FeatureSpec(name="a", embedding_dim=6, num_embeddings=400, max_length=4, pooling=Pooling.MEAN),
    FeatureSpec(name="b", embedding_dim=6, num_embeddings=3, max_length=1),
    FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=400, source="a"),
]
CONFIGS = [DPQConfig(num_centroids=16), MGQEConfig(num_centroids=16)]
ZIPF = tuple(1000 for _ in range(9))  # octave counts


def bags(seed: int = 0) -> reference.Bags:
    one = reference.random_bags({"b": 3}, 12, seed=seed, max_length=1)
    return reference.random_bags({"a": 400}, 12, seed=seed, max_length=4) | one


def trained(config: DPQConfig) -> tuple[PlannedEmbeddingBagCollection, EmbeddingParts]:
    """Rows and centroids of order 1."""
    torch.manual_seed(0)
    collection = PlannedEmbeddingBagCollection(replace(config, init=Init(scale=1.0)).plan(FEATURES)).eval()
    reference.randomise(collection, seed=0)
    tables = reference.dense_tables(collection.plan, collection)
    return collection, parts_of(collection, {name: table.detach() for name, table in tables.items()})


def combiner_by_hand() -> NearestCentroids:
    combiner = NearestCentroids(codebook=[2, 2, 2], init_scale=1.0, penalty_weight=0.5)
    combiner.codebook.data = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [4.0, 0.0]]])
    return combiner


def test_forward_penalty_and_gradients_by_hand() -> None:
    combiner = combiner_by_hand()
    row = torch.tensor([[0.9, 0.8, 1.0, 1.0]], requires_grad=True)
    out = combiner(torch.zeros(1, dtype=torch.int64), [row])
    assert out.tolist() == [[1.0, 1.0, 0.0, 2.0]]
    (out * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert row.grad is not None and row.grad.tolist() == [[1, 2, 3, 4]], "as if nothing had been rounded"
    assert combiner.codebook.grad is None
    penalty = combiner.take_penalty()
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.5 * (0.01 + 0.04 + 1 + 1) / 4)
    penalty.backward()
    # 0.5 * 2 * (centroid - row) / 4 for the two centroids used
    want = torch.tensor([[[0.0, 0.0], [0.1, 0.2]], [[-1.0, 1.0], [0.0, 0.0]]]) / 4
    torch.testing.assert_close(combiner.codebook.grad, want)
    assert combiner.take_penalty() is None, "taken once"


def test_no_penalty_of_scoring_and_a_zero_one_without_ids() -> None:
    combiner = combiner_by_hand()
    combiner.eval()(torch.zeros(1, dtype=torch.int64), [torch.zeros(1, 4)])
    assert combiner.take_penalty() is None
    combiner.train()(torch.zeros(0, dtype=torch.int64), [torch.zeros(0, 4)])
    penalty = combiner.take_penalty()
    assert penalty is not None and penalty.item() == 0
    penalty.backward()
    assert combiner.codebook.grad is not None and not combiner.codebook.grad.any()


def test_rare_ids_choose_among_the_first_centroids() -> None:
    combiner = HeadTailCentroids(codebook=[1, 3, 1], init_scale=1.0, penalty_weight=1.0, num_head=5, tail_centroids=2)
    combiner.codebook.data = torch.tensor([[[0.0], [1.0], [2.0]]])
    rows = [torch.tensor([[5.0], [5.0], [-1.0]])]
    assert combiner(torch.tensor([4, 5, 6]), rows).tolist() == [[2.0], [1.0], [0.0]]


def test_head_and_tail_codes_by_hand() -> None:
    remap = HeadTailCodesRemap(num_ids=4, num_head=1, num_parts=2, num_centroids=8, tail_centroids=2)
    remap.fill(torch.tensor([[7, 5], [1, 0], [0, 1], [1, 1]]))
    assert remap(torch.tensor([0, 1, 2, 3, 0])).tolist() == [[7, 1, 0, 1, 7], [8 + 5, 8, 8 + 1, 8 + 1, 8 + 5]]
    assert remap.head.tolist() == [0b101111, 0, 0, 0] and remap.tail.tolist() == [0b111001, 0, 0, 0]


@pytest.mark.parametrize("config", CONFIGS)
def test_served_equals_trained(config: DPQConfig) -> None:
    collection, parts = trained(config)
    frozen = config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    assert {table.name for table in frozen.plan.tables} == {"codebook_a", "table_b", "codebook_a__linear"}
    served, want = build_frozen(frozen)(reference.jagged(bags())), collection(reference.jagged(bags()))
    torch.testing.assert_close(served.values(), want.values(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_codes_of_every_id_are_those_of_its_row(config: DPQConfig) -> None:
    """Also of ids that no batch has held."""
    _, parts = trained(config)
    frozen = config.freeze(parts)
    ids = torch.arange(400)
    rows = frozen.tables["codebook_a"][frozen.remaps["a"](ids)].transpose(0, 1).flatten(1)
    with torch.no_grad():
        assert torch.equal(rows, parts.combiners["a"](ids, [parts.tables["table_a"]]))


@pytest.mark.parametrize("config", CONFIGS)
def test_values_and_gradients_equal_the_dense_reference(config: DPQConfig) -> None:
    collection, parts = trained(config)
    tables, states = reference.dense_tables(parts.plan, collection), reference.states_of(collection)
    out = collection(reference.jagged(bags())).values()
    want = reference.pooled(parts.plan, tables, bags(), states)
    torch.testing.assert_close(out, want)
    out.square().sum().backward()
    want.square().sum().backward()
    reference.assert_same_gradients(parts.plan, collection, tables)


def test_published_shape_takes_the_bytes_of_its_formula() -> None:
    # P = 8 and K = 32 of width 16: n * 8 * 5 bits, and 32 rows
    feature = FeatureSpec(name="a", embedding_dim=16, num_embeddings=10_000)
    config = DPQConfig(num_centroids=32)
    plan = config.serving_plan(config.plan([feature]))
    assert plan.num_bytes == 10_000 * 5 + 3 + 32 * 16 * 4 == codes_bytes(10_000, 16, 8, 32)
    config = MGQEConfig(num_centroids=256)
    plan = config.serving_plan(config.plan([feature]))
    assert plan.num_bytes == (1000 * 8 + 3) + (9000 * 6 + 3) + 256 * 16 * 4


@pytest.mark.parametrize("method", [DPQConfig, MGQEConfig])
def test_budgets_are_kept_and_used(method: type[DPQConfig]) -> None:
    features = [
        FeatureSpec(name=name, embedding_dim=16, num_embeddings=size, octave_counts=ZIPF)
        for name, size in {"a": 100_000, "b": 3_000, "c": 40, "d": 1}.items()
    ]
    last = 0
    for ratio in (100, 50, 20, 12, 9):
        config = method(compression_ratio=ratio)
        needed = config.serving_plan(config.plan(features)).num_bytes
        assert needed <= config.budget_bytes(features)
        assert needed > 0.6 * config.budget_bytes(features) and needed >= last
        last = needed
    without = method().plan(features)
    assert [len(entry.combiner.params) > 0 for entry in without.features] == [True, True, False, False]
    assert without.features[0].combiner.params["codebook"] == [8, 256, 2]


def test_refusal_tells_the_floor_which_is_a_bit_an_id() -> None:
    feature = FeatureSpec(name="a", embedding_dim=16, num_embeddings=80_000)
    floor = 80_000 // 8 + 3 + 2 * 16 * 4
    with pytest.raises(ConfigError, match=f"needs {floor:,} bytes"):
        DPQConfig(budget_mib=1e-3).plan([feature])
    config = DPQConfig(budget_mib=floor / 2**20)
    assert config.serving_plan(config.plan([feature])) == codes_plan(feature, num_parts=1, num_centroids=2)


def test_sizes_to_choose_from() -> None:
    assert code_sizes(4, part_dim=2, num_centroids=5) == [(1, 2), (1, 4), (2, 2), (2, 4)]
    assert code_sizes(1, part_dim=2, num_centroids=2) == [(1, 2)]
    assert {parts for parts, _ in code_sizes(10, part_dim=3, num_centroids=2)} == {1, 2}


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (DPQConfig, {"part_dim": 0}, "part_dim=0"),
        (DPQConfig, {"num_centroids": 1}, "num_centroids=1"),
        (DPQConfig, {"num_centroids": 3}, "num_centroids=3: must be a power of two"),
        (MGQEConfig, {"num_centroids": 255}, "num_centroids=255"),
        (DPQConfig, {"num_centroids": 2**17}, "num_centroids=131072"),
        (DPQConfig, {"penalty_weight": 0.0}, "penalty_weight=0.0"),
        (DPQConfig, {"penalty_weight": math.inf}, "penalty_weight=inf"),
        (DPQConfig, {"penalty_weight": math.nan}, "penalty_weight=nan"),
        (MGQEConfig, {"head_share": 1.0}, "head_share=1.0"),
        (MGQEConfig, {"tail_divisor": 1}, "tail_divisor=1"),
    ],
)
def test_impossible_options_are_refused(method: type[DPQConfig], values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method(**values)  # type: ignore[arg-type]


def test_hashed_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="no vocabulary"):
        DPQConfig().plan([FeatureSpec(name="a", embedding_dim=4, num_embeddings=None)])


def test_penalties_of_all_codebooks_add_up_and_centroids_follow_rows() -> None:
    collection, parts = trained(CONFIGS[0])
    collection.train()
    (callback,) = CONFIGS[0].callbacks(parts.plan)
    session = cast(TrainingSession, OneRank(model=collection))
    callback.on_train_start(session)
    assert callback.penalty(session, 1) is None
    optimizer = torch.optim.Adam([p for n, p in collection.named_parameters() if n.endswith("codebook")], lr=0.02)
    penalties = []
    for _ in range(60):
        collection(reference.jagged(bags()))
        penalty = callback.penalty(session, 1)
        assert penalty is not None
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        penalties.append(penalty.item())
    assert penalties[-1] < 0.6 * penalties[0]


def test_refresh_with_fewer_rows_than_centroids_moves_as_many() -> None:
    combiner = HeadTailCentroids(codebook=[1, 9, 2], init_scale=1.0, penalty_weight=1.0, num_head=2, tail_centroids=4)
    rows = torch.tensor([[5.0, 5.0], [-5.0, 5.0], [5.0, -5.0]])
    before = combiner.codebook.detach().clone()
    after = combiner.refined(torch.tensor([0, 1, 7]), rows, 3)
    assert torch.equal(after[0, :3].sort(0).values, rows.sort(0).values), "of three rows each is a centroid"
    assert torch.equal(after[0, 3], before[0, 3]) and torch.equal(after[0, 6:], before[0, 6:])
    assert torch.equal(after[0, 4:6].sort(0).values, rows[:2].sort(0).values), "of the frequent ones again"


def test_plans_without_codes_need_no_callback() -> None:
    config = DPQConfig(full_below=400)
    assert config.callbacks(config.plan(FEATURES)) == []
    assert isinstance(DPQConfig().callbacks(DPQConfig().plan(FEATURES))[0], TrainCodebooks)
