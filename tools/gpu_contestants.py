"""Who is compared by `bench_gpu.py`: the planned collection, raw FBGEMM, `torch.nn.EmbeddingBag`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from recsys.train.config import DeviceConfig, OptimizerConfig
from recsys.train.session import shard

NUM_FEATURES, LEARNING_RATE = 26, 0.01
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(),
    "hash 5x": HashConfig(compression_ratio=5),
    "quotient_remainder 5x": QuotientRemainderConfig(compression_ratio=5),
    "unified 5x": UnifiedConfig(compression_ratio=5),
    "unified 5x, two look-ups": UnifiedConfig(compression_ratio=5, num_lookups=2),
}
FBGEMM, EMBEDDING_BAG = "FBGEMM, raw", "nn.EmbeddingBag"


@dataclass(frozen=True)
class Contestant:
    """Something that embeds ids (features, rows) as (rows, features x width) and updates itself on the way back."""

    forward: Callable[[Tensor], Tensor]
    update: Callable[[], None]
    plan: TablePlan
    state_per_row: int
    memory_bytes: int


class Bags(nn.Module):
    """One `EmbeddingBag` per feature."""

    def __init__(self, num_ids: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(num_ids, width, mode="sum", sparse=True, device=device) for _ in range(NUM_FEATURES)
        )

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Embed ids, int64 (features, rows), to float32 (rows, features x width)."""
        return torch.cat([bag(ids[number], offsets) for number, bag in enumerate(self.bags)], dim=1)


def features(num_ids: int, width: int) -> list[FeatureSpec]:
    """The logical features."""
    return [
        FeatureSpec(name=f"C{number}", embedding_dim=width, num_embeddings=num_ids, max_length=1)
        for number in range(NUM_FEATURES)
    ]


def planned(method: MethodConfig, num_ids: int, width: int, run_on: DeviceConfig) -> Contestant:
    """The planned collection as training runs it."""
    device = torch.device(run_on.device)
    before = allocated(device)
    plan = method.plan(features(num_ids, width))
    collection = PlannedEmbeddingBagCollection(plan, torch.device("meta"))
    model = shard(collection, OptimizerConfig(table_learning_rate=LEARNING_RATE), run_on, device).model
    keys = [f"C{number}" for number in range(NUM_FEATURES)]

    def forward(ids: Tensor) -> Tensor:
        # A jagged tensor of its own every time, as every batch brings one: nothing may be cached in it.
        lengths = torch.ones(ids.numel(), dtype=torch.int64, device=ids.device)
        embedded: Tensor = model(KeyedJaggedTensor(keys=keys, values=ids.reshape(-1), lengths=lengths)).values()
        return embedded

    return Contestant(forward, _nothing, plan, 1, allocated(device) - before)


def raw_fbgemm(num_ids: int, width: int, device: torch.device) -> Contestant:
    """FBGEMM's table-batched embedding, without any of TorchRec."""
    before = allocated(device)
    on_gpu = device.type == "cuda"
    place = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if on_gpu else (EmbeddingLocation.HOST, ComputeDevice.CPU)
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(num_ids, width, *place)] * NUM_FEATURES,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LEARNING_RATE,
        eps=1e-8,
        device=device,
    )
    tables.init_embedding_weights_uniform(-0.01, 0.01)

    def forward(ids: Tensor) -> Tensor:
        embedded: Tensor = tables(ids.reshape(-1), torch.arange(ids.numel() + 1, device=ids.device))
        return embedded

    return Contestant(forward, _nothing, FullConfig().plan(features(num_ids, width)), 1, allocated(device) - before)


def embedding_bags(num_ids: int, width: int, device: torch.device) -> Contestant:
    """PyTorch's own modules."""
    before = allocated(device)
    bags = Bags(num_ids, width, device)
    optimizer = torch.optim.SGD(bags.parameters(), lr=LEARNING_RATE)

    def forward(ids: Tensor) -> Tensor:
        optimizer.zero_grad()
        embedded: Tensor = bags(ids, torch.arange(ids.shape[1], device=ids.device))
        return embedded

    plan = FullConfig().plan(features(num_ids, width))
    return Contestant(forward, lambda: _step(optimizer), plan, 0, allocated(device) - before)


def _nothing() -> None:
    """Fused tables have done their update in the backward pass."""


def _step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()


def contestants(num_ids: int, width: int, run_on: DeviceConfig) -> dict[str, Contestant]:
    """All that are compared, in the order of the table."""
    device = torch.device(run_on.device)
    return {
        FBGEMM: raw_fbgemm(num_ids, width, device),
        EMBEDDING_BAG: embedding_bags(num_ids, width, device),
        **{name: planned(method, num_ids, width, run_on) for name, method in METHODS.items()},
    }


def allocated(device: torch.device) -> int:
    """Bytes of device memory in use by this process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def bytes_moved(contestant: Contestant, ids: Tensor) -> int:
    """What one step must move at least; the formula is in `bench_gpu.py`."""
    rows: dict[str, list[Tensor]] = {}
    for number, entry in enumerate(contestant.plan.features):
        remap = entry.remap.build().to(ids.device)
        for table, looked_up in zip(entry.tables, remap(ids[number]), strict=True):
            rows.setdefault(table, []).append(looked_up)
    total = 8 * ids.shape[1] * sum(entry.feature.embedding_dim for entry in contestant.plan.features)
    for table, parts in rows.items():
        looked_up, width = torch.cat(parts), contestant.plan.table(table).storage_dim
        distinct = int(torch.unique(looked_up).numel())
        total += looked_up.numel() * (4 * width + 16) + distinct * 8 * (width + contestant.state_per_row)
    return total
