"""Rows per second of the planned collection beside TorchRec's own: forward, backward, fused row-wise Adagrad.

Both run inside DistributedModelParallel on one process, as training runs them.

    python tools/bench_collection.py [--rounds 9] [--rows 100000] [--profile METHOD]

Contestants take turns within every round, so that a busy machine slows all of them alike; medians and their ratio to
the plain collection are printed. Run it alone on the machine.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from tools.stepping import take_turns

NUM_FEATURES, BATCH_SIZE = 26, 4096
METHODS: dict[str, tuple[MethodConfig, int, int | None]] = {  # config, embedding_dim, max_length
    "full": (FullConfig(), 16, 1),
    "full, width 10 (padded to 12)": (FullConfig(), 10, 1),
    "hash 5x": (HashConfig(compression_ratio=5), 16, 1),
    "quotient_remainder 5x": (QuotientRemainderConfig(compression_ratio=5), 16, 1),
    "quotient_remainder 5x, multi-valued": (QuotientRemainderConfig(compression_ratio=5), 16, None),
    "unified 5x": (UnifiedConfig(compression_ratio=5), 16, 1),
    "unified 5x, two look-ups": (UnifiedConfig(compression_ratio=5, num_lookups=2), 16, 1),
}


def features(num_embeddings: int, width: int, max_length: int | None) -> list[FeatureSpec]:
    """The logical features."""
    return [
        FeatureSpec(name=f"C{n}", embedding_dim=width, num_embeddings=num_embeddings, max_length=max_length)
        for n in range(NUM_FEATURES)
    ]


def plain(num_embeddings: int) -> EmbeddingBagCollection:
    """TorchRec's own collection of the same tables."""
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(name=f"t{n}", num_embeddings=num_embeddings, embedding_dim=16, feature_names=[f"C{n}"])
            for n in range(NUM_FEATURES)
        ],
        device=torch.device("meta"),
    )


def batch(num_embeddings: int) -> KeyedJaggedTensor:
    """One id per row and feature, uniformly random."""
    size = NUM_FEATURES * BATCH_SIZE
    return KeyedJaggedTensor(
        keys=[f"C{n}" for n in range(NUM_FEATURES)],
        values=torch.randint(num_embeddings, (size,), generator=torch.Generator().manual_seed(0)),
        lengths=torch.ones(size, dtype=torch.int64),
    )


def parallel(collection: nn.Module, tables: list[str]) -> nn.Module:
    """The collection under model parallelism, with fused row-wise Adagrad."""
    fused: dict[str, Any] = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": 0.01}
    sharders: list[Any] = [EmbeddingBagCollectionSharder(fused_params=fused), EmbeddingCollectionSharder(fused)]
    fixed = ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device="cpu"), constraints=dict.fromkeys(tables, fixed)
    )
    plan = planner.plan(collection, sharders)
    return DistributedModelParallel(collection, device=torch.device("cpu"), plan=plan, sharders=sharders)


def step(model: nn.Module, ids: KeyedJaggedTensor) -> Callable[[], None]:
    """One training step on a fresh jagged tensor, so that nothing is cached in it."""

    def run() -> None:
        fresh = KeyedJaggedTensor(keys=ids.keys(), values=ids.values(), lengths=ids.lengths())
        model(fresh).values().sum().backward()

    return run


def measure(contestants: dict[str, Callable[[], None]], num_rounds: int) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    return {name: statistics.median(taken) for name, taken in take_turns(contestants, num_rounds, warm_up=1).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=100_000, help="ids of each feature")
    parser.add_argument("--profile", choices=METHODS, help="print where the time of one method goes, instead")
    arguments = parser.parse_args()
    ids = batch(arguments.rows)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    names = [f"t{n}" for n in range(NUM_FEATURES)]
    runs = {"plain EmbeddingBagCollection": step(parallel(plain(arguments.rows), names), ids)}
    for name, (config, width, max_length) in METHODS.items():
        plan = config.plan(features(arguments.rows, width, max_length))
        collection = PlannedEmbeddingBagCollection(plan, device=torch.device("meta"))
        runs[name] = step(parallel(collection, [table.name for table in plan.tables]), ids)
    if arguments.profile:
        with torch.profiler.profile() as profile:
            for _ in range(arguments.rounds):
                runs[arguments.profile]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50))
        return
    medians = measure(runs, arguments.rounds)
    base = medians["plain EmbeddingBagCollection"]
    print(f"{NUM_FEATURES} features x {arguments.rows:,} ids, batch {BATCH_SIZE}, {torch.get_num_threads()} threads")
    for name, seconds in medians.items():
        rate = BATCH_SIZE / seconds
        print(f"{name:<38}{seconds * 1e3:8.1f} ms{rate:>12,.0f} rows/s{base / seconds:>7.2f} x plain")


if __name__ == "__main__":
    main()
