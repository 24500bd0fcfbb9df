"""`dhe`: hashes worked out in Python integers, a network of the stated size, no look-ups at all."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from pipelines.entry import leave
from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection
from recsys.embeddings.dhe import Activation, DHEConfig, HashNetwork, Normalise
from recsys.train.trainer import _average_statistics
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets, features_of
from tests.embeddings.reference.dhe import encoding
from tests.embeddings.test_dense_parity import KINDS

EXTREMES = [2**63 - 1, -(2**63), -1, 0, 1, 2**53 + 1]
SIZES = {"user": 400, "type": 500, "tags": 300}
SMALL = DHEConfig(num_hashes=6, num_layers=2, compression_ratio=8, init=Init(scale=1.0))


def specs(kind: str, *, width: int = 4) -> list[FeatureSpec]:
    max_length, pooling = KINDS[kind]
    return [
        FeatureSpec(name=name, embedding_dim=width, num_embeddings=size, pooling=pooling, max_length=max_length)
        for name, size in SIZES.items()
    ]


def network(num_hashes: int = 1024, *, activation: str = "relu", batch_norm: bool = False) -> HashNetwork:
    torch.manual_seed(0)
    return HashNetwork([num_hashes, 64, 64, 16], activation=activation, batch_norm=batch_norm, salt=5, scale=0.1)


@pytest.mark.parametrize("num_hashes", [1, 4, 6, 17])
def test_hashes_equal_the_independent_implementation(num_hashes: int) -> None:
    got = network(num_hashes).encode(torch.tensor(EXTREMES))
    assert got.dtype == torch.float32 and got.shape == (6, num_hashes)
    assert got.tolist() == [encoding(5, num_hashes, key) for key in EXTREMES]


def test_golden_hashes() -> None:
    got = (network(6).encode(torch.tensor([0, 1, 2**63 - 1])) * 2**16).tolist()
    assert got == GOLDEN


GOLDEN = [
    [-20235.0, -17363.0, -5793.0, -44783.0, -25065.0, -34611.0],
    [21195.0, -5595.0, -9959.0, -26995.0, -35093.0, -53529.0],
    [30311.0, -16755.0, -6459.0, 39837.0, 3961.0, -28969.0],
]
"""In units of 2^-16: odd, from the mix in Python integers."""


def test_hashes_are_uniform_and_independent() -> None:
    values = network().encode(torch.arange(4000))
    assert values.abs().max().item() < 1
    assert values.mean().item() == pytest.approx(0, abs=2e-3) and values.var().item() == pytest.approx(1 / 3, rel=5e-3)
    correlation = torch.corrcoef(values[:, :64].t()) - torch.eye(64)
    assert correlation.abs().max().item() < 6 / 4000**0.5
    assert torch.corrcoef(values[:64]).fill_diagonal_(0).abs().max().item() < 6 / 1024**0.5


@pytest.mark.parametrize("batch_norm", [False, True])
def test_bytes_are_those_of_the_formula(batch_norm: bool) -> None:
    """(k + 1) w + 4 (w + 1) w + (w + 1) d floats; with batch normalisation 4 w more a layer."""
    feature = FeatureSpec(name="a", embedding_dim=16, num_embeddings=10**6)
    for width in (1, 2, 50):
        floats = 1025 * width + 4 * (width + 1) * width + (width + 1) * 16 + 20 * width * batch_norm
        config = DHEConfig(num_hashes=1024, budget_mib=floats * 4 / 2**20, batch_norm=batch_norm)
        plan = config.plan([feature])
        assert plan.num_bytes == plan.combiner_bytes == floats * 4 and not plan.tables
        assert plan.features[0].combiner.params["sizes"] == [1024, *[width] * 5, 16]


def test_one_width_for_all_and_small_features_stay_full() -> None:
    plan = DHEConfig(compression_ratio=10).plan(features_of((50, 90_000, 8, 70_000), 16, counted=False, linear=False))
    assert [entry.tables for entry in plan.features] == [("table_f0",), (), ("table_f2",), ()]
    sizes = [entry.combiner.params["sizes"] for entry in plan.features if not entry.tables]
    assert sizes[0] == sizes[1]
    salts = [entry.combiner.params["salt"] for entry in plan.features if not entry.tables]
    assert salts[0] != salts[1]


def test_budgets_are_met_or_the_floor_is_told() -> None:
    check_budgets(lambda ratio: DHEConfig(compression_ratio=ratio, num_hashes=16, num_layers=1))


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_values_and_gradients_equal_the_dense_reference(
    kind: str, activation: Activation, batch_norm: bool, pooled: bool
) -> None:
    config = DHEConfig(
        num_hashes=6, num_layers=2, compression_ratio=4, init=Init(scale=1.0), activation=activation,
        batch_norm=batch_norm,
    )  # fmt: skip
    plan = config.plan(specs(kind))
    assert not plan.tables
    bags = reference.random_bags(SIZES, 5, seed=0, max_length=KINDS[kind][0])
    torch.manual_seed(0)
    collection = (PlannedEmbeddingBagCollection if pooled else PlannedEmbeddingCollection)(plan).eval()
    for norm in collection.modules():
        if isinstance(norm, Normalise):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    states = reference.states_of(collection)
    if pooled:
        got, want = collection(reference.jagged(bags)).values(), reference.pooled(plan, {}, bags, states)
    else:
        got = torch.cat([jagged.values() for jagged in collection(reference.jagged(bags)).values()])
        want = torch.cat([*reference.unpooled(plan, {}, bags, states).values()])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(want.shape)
    (got * upstream).sum().backward()
    (want * upstream).sum().backward()
    reference.assert_same_combiner_gradients(collection, states)


def test_empty_bags_embed_to_zero_and_a_batch_without_ids_works() -> None:
    for kind in KINDS:
        collection = PlannedEmbeddingBagCollection(SMALL.plan(specs(kind)))
        with torch.no_grad():
            for bias in (p for name, p in collection.named_parameters() if name.endswith("bias")):
                bias.fill_(1.0)
        some = collection(reference.jagged({"user": [[], [3]], "type": [[1], []], "tags": [[2], [2]]}))
        assert not some["user"][0].any() and some["user"][1].any() and not some["type"][1].any()
        none = collection(reference.jagged({name: [[], []] for name in SIZES})).values()
        assert none.shape == (2, 12) and not none.any()


@pytest.mark.parametrize("activation", ["relu", "mish"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_embeddings_start_at_the_stated_scale(activation: str, batch_norm: bool) -> None:
    out = network(activation=activation, batch_norm=batch_norm)(torch.arange(3000), [])
    assert 0.05 < out.std().item() < 0.2


@pytest.mark.parametrize("batch_norm", [False, True])
def test_scripted_equals_eager_for_any_id_and_for_none(batch_norm: bool) -> None:
    module = network(batch_norm=batch_norm).eval()
    scripted = torch.jit.script(module)
    for ids in (torch.tensor(EXTREMES), torch.tensor([7]), torch.empty(0, dtype=torch.int64)):
        torch.testing.assert_close(scripted(ids, []), module(ids, []), rtol=0, atol=0)


def test_hashed_features_need_no_vocabulary() -> None:
    spec = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(3,) * 12, max_length=1)
    plan = DHEConfig(num_hashes=64, compression_ratio=4).plan([spec])
    out = PlannedEmbeddingBagCollection(plan)(reference.jagged({"ip": [[key] for key in EXTREMES]})).values()
    assert plan.num_bytes <= 2**12 * 8 and len(out.unique(dim=0)) == len(EXTREMES)


def test_batch_statistics_need_two_ids() -> None:
    module = network(batch_norm=True)
    for num in (0, 1):
        module(torch.arange(num), [])
    norms = [norm for norm in module.modules() if isinstance(norm, Normalise)]
    assert all(not norm.running_mean.any() for norm in norms), "one id has no variance to learn from"
    module(torch.arange(9), [])
    assert all(norm.running_mean.any() for norm in norms)


def average_on(rank: int, store: str, results: str) -> None:
    """One rank of two: statistics of its own, then what training makes of them before validation."""
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    module = network(8, batch_norm=True)
    module(torch.arange(100 * rank, 100 * rank + 50), [])
    before = [buffer.clone() for name, buffer in module.named_buffers() if "running" in name]
    session = SimpleNamespace(world_size=2, model=nn.Sequential(module))
    _average_statistics(session)  # type: ignore[arg-type]
    after = [buffer for name, buffer in module.named_buffers() if "running" in name]
    torch.save((before, after), Path(results) / f"{rank}.pt")
    dist.destroy_process_group()
    leave()


def test_two_ranks_validate_with_equal_statistics(tmp_path: Path) -> None:
    mp.spawn(average_on, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    loaded: list[tuple[list[Tensor], list[Tensor]]] = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    (first, mean), (second, same) = loaded
    assert len(mean) == 4
    for one, other, a, b in zip(first, second, mean, same, strict=True):
        torch.testing.assert_close(a, (one + other) / 2)
        assert torch.equal(a, b) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hashes": 0}, "num_hashes=0: must be 1 or more"),
        ({"num_layers": 0}, "num_layers=0: must be 1 or more"),
        ({"init": Init(center=1.0)}, r"init.center=1.0: .*centred on zero"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, int | Init], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DHEConfig(**values)  # type: ignore[arg-type]
