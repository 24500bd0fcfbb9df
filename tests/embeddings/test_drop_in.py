"""The planned collection stands in for TorchRec's in code that knows nothing of it: its DLRM, its model parallelism."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.models.dlrm import DLRM
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recsys.core.specs import FeatureSpec, Init, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from tests.embeddings import dense_reference as reference

SIZES = {"user": 50, "item": 40, "tags": 30}
FEATURES = [
    FeatureSpec(name="user", embedding_dim=8, num_embeddings=50, max_length=1),
    FeatureSpec(name="item", embedding_dim=8, num_embeddings=40, max_length=1),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=30, pooling=Pooling.SUM),
]
INIT = Init(scale=0.5)
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(init=INIT),
    "hash": HashConfig(init=INIT, compression_ratio=2),
    "quotient_remainder": QuotientRemainderConfig(init=INIT, compression_ratio=1.7),
    "unified": UnifiedConfig(init=INIT, num_lookups=2, compression_ratio=3),
    "mixed": MixedConfig(
        default=QuotientRemainderConfig(init=INIT, compression_ratio=1.7),
        assignments=[Assignment(features=["user"], method=UnifiedConfig(init=INIT, num_lookups=2))],
    ),
}


def batch(num_rows: int = 16) -> tuple[Tensor, reference.Bags]:
    dense = torch.randn(num_rows, 3, generator=torch.Generator().manual_seed(0))
    one_hot = reference.random_bags({"user": 50, "item": 40}, num_rows, seed=1, max_length=1)
    return dense, one_hot | reference.random_bags({"tags": 30}, num_rows, seed=2, max_length=3)


def dlrm(collection: EmbeddingBagCollection) -> DLRM:
    torch.manual_seed(0)
    return DLRM(
        embedding_bag_collection=collection,
        dense_in_features=3,
        dense_arch_layer_sizes=[16, 8],
        over_arch_layer_sizes=[16, 1],
    )


def plain_collection() -> EmbeddingBagCollection:
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(name=f"table_{name}", num_embeddings=size, embedding_dim=8, feature_names=[name])
            for name, size in SIZES.items()
        ]
    )


@pytest.mark.parametrize("method", METHODS)
def test_dlrm_of_torchrec_trains_every_table(method: str) -> None:
    collection = PlannedEmbeddingBagCollection(METHODS[method].plan(FEATURES))
    model = dlrm(collection)  # type: ignore[arg-type]
    dense, bags = batch()
    logits = model(dense, reference.jagged(bags))
    assert logits.shape == (16, 1)
    nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), torch.arange(16) % 2.0).backward()
    for name, weight in reference.table_parameters(collection).items():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_dlrm_of_torchrec_gives_the_logits_it_gives_with_its_own_collection() -> None:
    planned = PlannedEmbeddingBagCollection(METHODS["full"].plan(FEATURES))
    plain = plain_collection()
    plain.load_state_dict(
        {f"embedding_bags.{name}.weight": weight for name, weight in reference.table_parameters(planned).items()}
    )
    dense, bags = batch()
    logits = dlrm(planned)(dense, reference.jagged(bags))  # type: ignore[arg-type]
    assert torch.equal(logits, dlrm(plain)(dense, reference.jagged(bags)))


def test_configs_say_what_torchrec_code_asks_for() -> None:
    specs = [*FEATURES[:2], replace(FEATURES[2], pooling=Pooling.MEAN)]
    configs = PlannedEmbeddingBagCollection(UnifiedConfig(num_lookups=2, lookups={"item": 3}).plan(specs))
    described = [(c.name, c.embedding_dim, c.feature_names, c.pooling.value) for c in configs.embedding_bag_configs()]
    assert described == [("user", 8, ["user"], "SUM"), ("item", 12, ["item"], "SUM"), ("tags", 8, ["tags"], "MEAN")]
    assert not configs.is_weighted()


def test_collection_can_be_built_on_the_meta_device() -> None:
    collection = PlannedEmbeddingBagCollection(METHODS["mixed"].plan(FEATURES), device=torch.device("meta"))
    assert {weight.device.type for weight in collection.parameters()} == {"meta"}


LEARNING_RATE, EPSILON = 0.1, 1e-8


def sharded(collection: PlannedEmbeddingBagCollection) -> DistributedModelParallel:
    fused: dict[str, Any] = {
        "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "learning_rate": LEARNING_RATE,
        "eps": EPSILON,
    }
    sharders: list[Any] = [EmbeddingBagCollectionSharder(fused_params=fused), EmbeddingCollectionSharder(fused)]
    # Left free, the planner makes small tables data-parallel, and those have no fused optimizer.
    fixed = ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device="cpu"),
        constraints={table.name: fixed for table in collection.plan.tables},
    )
    plan = planner.plan(collection, sharders)
    return DistributedModelParallel(collection, device=torch.device("cpu"), plan=plan, sharders=sharders)


def stored_tables(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the whole tables out of a sharded or plain state dict."""
    found = {}
    for name, tensor in module.state_dict().items():
        shards = tensor.local_shards() if hasattr(tensor, "local_shards") else []
        found[name.split(".")[-2]] = (shards[0].tensor if shards else tensor).detach().clone()
    return found


def row_wise_adagrad(weight: Tensor, gradient: Tensor, squares: Tensor) -> Tensor:
    """One step; the squared gradient of a row is averaged over its stored width, padding included."""
    squares += gradient.square().mean(dim=1)
    return weight - LEARNING_RATE * gradient / (squares.sqrt() + EPSILON).unsqueeze(1)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("width", [8, 10])
@pytest.mark.parametrize("method", METHODS)
def test_fused_row_wise_adagrad_under_model_parallelism_is_the_formula(method: str, width: int) -> None:
    plan = METHODS[method].plan([replace(spec, embedding_dim=width) for spec in FEATURES])
    model = sharded(PlannedEmbeddingBagCollection(plan))
    before = stored_tables(model)
    assert {name: w.shape for name, w in before.items()} == {
        table.name: (table.num_embeddings, table.storage_dim) for table in plan.tables
    }
    tables = {t.name: before[t.name][:, : t.embedding_dim].clone().requires_grad_() for t in plan.tables}
    squares = {name: torch.zeros(len(weight)) for name, weight in before.items()}
    for step in range(2):
        _, bags = batch(8 + step)
        out, want = model(reference.jagged(bags)).values(), reference.pooled(plan, tables, bags)
        torch.testing.assert_close(out, want)
        out.square().sum().backward()
        gradients = torch.autograd.grad(want.square().sum(), list(tables.values()))
        stored = stored_tables(model)
        for (name, weight), gradient in zip(list(tables.items()), gradients, strict=True):
            padding = (0, stored[name].shape[1] - weight.shape[1])
            old, gradient = nn.functional.pad(weight.detach(), padding), nn.functional.pad(gradient, padding)
            stepped = row_wise_adagrad(old, gradient, squares[name])
            torch.testing.assert_close(stored[name], stepped, rtol=1e-4, atol=1e-5)
            tables[name] = stepped[:, : weight.shape[1]].clone().requires_grad_()
    unchanged = [name for name, weight in before.items() if torch.equal(weight, stored_tables(model)[name])]
    assert unchanged == []


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("method", METHODS)
def test_state_of_the_sharded_model_loads_into_a_plain_one(method: str) -> None:
    plan = METHODS[method].plan(FEATURES)
    model = sharded(PlannedEmbeddingBagCollection(plan))
    _, bags = batch()
    model(reference.jagged(bags)).values().sum().backward()
    plain = PlannedEmbeddingBagCollection(plan)
    names = {name.split(".")[-2]: name for name in plain.state_dict()}
    plain.load_state_dict({names[table]: weight for table, weight in stored_tables(model).items()})
    torch.testing.assert_close(plain(reference.jagged(bags)).values(), model(reference.jagged(bags)).values())
    assert set(plain.state_dict()) == set(model.state_dict())
