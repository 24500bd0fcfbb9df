"""A model on its ranks: process group, TorchRec sharding plan, `DistributedModelParallel`, optimizers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.types import ModuleSharder, ShardingEnv, ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.train.config import DenseOptimizer, DeviceConfig, OptimizerConfig, Sharding, TableMemory, TableOptimizer

FUSED_OPTIMIZERS = {
    TableOptimizer.ROWWISE_ADAGRAD: EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    TableOptimizer.ADAGRAD: EmbOptimType.EXACT_ADAGRAD,
    TableOptimizer.SGD: EmbOptimType.EXACT_SGD,
    TableOptimizer.ADAM: EmbOptimType.ADAM,
}


@dataclass
class Session:
    """A sharded model with its optimizers on this rank."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    device: torch.device
    rank: int
    world_size: int
    table_parameters: list[nn.Parameter]  # those with dense gradients; empty when tables are fused

    @property
    def is_main(self) -> bool:
        """True on the rank that writes and prints."""
        return self.rank == 0

    def scale_learning_rates(self, base: list[float], factor: float, floor: float) -> None:
        """Set each group's learning rate to `max(base * factor, floor)`."""
        for group, learning_rate in zip(self._groups, base, strict=True):
            group["lr"] = max(learning_rate * factor, min(floor, learning_rate))

    def learning_rates(self) -> list[float]:
        """Learning rate of each group: tables, then the dense part."""
        return [group["lr"] for group in self._groups]

    @property
    def _groups(self) -> list[dict[str, Any]]:
        # The optimizers' own dicts; typed as read-only by TorchRec.
        return list(self.optimizer.param_groups)  # type: ignore[arg-type]

    def weights_loaded(self) -> None:
        """Forget the rows in device caches (`uvm_caching`), after something wrote weights through `state_dict()`.

        Such a write reaches host memory only, and look-ups would go on with the cached rows of before.
        """
        for module in self.model.modules():
            for lookup in getattr(module, "_lookups", ()):  # TorchRec keeps them outside its module tree
                for part in lookup.modules():
                    if isinstance(part, SplitTableBatchedEmbeddingBagsCodegen):
                        part.reset_cache_states()

    def optimizer_loaded(self, step: int) -> None:
        """Bring optimizers in line with the state just loaded, of a run that had done `step` steps."""
        self.optimizer.post_load_state_dict()
        # Fused Adam corrects its bias by a count of steps that is in no state dict.
        self.optimizer.set_optimizer_step(step)


@contextmanager
def process_group(config: DeviceConfig) -> Iterator[torch.device]:
    """Join the ranks that torchrun started, or be the only one, over an in-process store that needs no port.

    Yields:
        This rank's device.
    """
    local_rank, launched = int(os.environ.get("LOCAL_RANK", "0")), "WORLD_SIZE" in os.environ
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run_on.device=cuda, but torch sees no GPU. Use run_on.device=cpu; `python -m pipelines.doctor` tells more."
        )
    device = torch.device("cuda", local_rank) if config.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    if launched:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def shard(model: nn.Module, optimizer: OptimizerConfig, run_on: DeviceConfig, device: torch.device) -> Session:
    """Lay the model's tables over the ranks and give everything its optimizer."""
    if run_on.table_memory is TableMemory.UVM_CACHING and device.type == "cpu":
        raise ConfigError(
            "run_on.table_memory=uvm_caching keeps tables in host memory behind a GPU's cache, and run_on.device=cpu "
            "has no GPU. Set run_on.table_memory=device."
        )
    fused = optimizer.table is not TableOptimizer.ADAM or device.type == "cuda"
    sharders = _sharders(optimizer, run_on, fused=fused)
    plan = _sharding_plan(model, sharders, device)
    group = dist.group.WORLD
    assert group is not None
    for part in model.modules():
        if isinstance(part, (Remap, Combiner)):  # TorchRec moves modules without parameters only if others have some
            part.to(device)
    sharded = DistributedModelParallel(
        model, env=ShardingEnv.from_process_group(group), device=device, plan=plan, sharders=sharders
    )
    return _with_optimizers(sharded, optimizer, device, fused=fused)


def _sharders(optimizer: OptimizerConfig, run_on: DeviceConfig, *, fused: bool) -> list[ModuleSharder[Any]]:
    every = [s.value for s in Sharding if s is not Sharding.AUTO]
    if not fused:
        if run_on.sharding not in (Sharding.AUTO, Sharding.DATA_PARALLEL):
            raise ConfigError(
                f"run_on.sharding={run_on.sharding.value}: Adam on a CPU runs through TorchRec's dense kernel, which replicates "
                "tables on every rank. Set run_on.sharding=data_parallel, or optimizer.table=rowwise_adagrad to shard."
            )
        return _of(None, [Sharding.DATA_PARALLEL.value], [EmbeddingComputeKernel.DENSE.value])
    if run_on.sharding is Sharding.DATA_PARALLEL:
        raise ConfigError(
            "run_on.sharding=data_parallel keeps whole tables on every rank, so it needs optimizer.table=adam."
        )
    types = every[:-1] if run_on.sharding is Sharding.AUTO else [run_on.sharding.value]
    parameters: dict[str, Any] = {
        "optimizer": FUSED_OPTIMIZERS[optimizer.table],
        "learning_rate": optimizer.table_learning_rate,
        "eps": 1e-8,
    }
    kernel = EmbeddingComputeKernel.FUSED
    if run_on.table_memory is TableMemory.UVM_CACHING:
        kernel = EmbeddingComputeKernel.FUSED_UVM_CACHING
        parameters["cache_load_factor"] = run_on.cache_load_factor
    return _of(parameters, types, [kernel.value])


def _of(fused: dict[str, Any] | None, types: list[str], kernels: list[str]) -> list[ModuleSharder[Any]]:
    """Sharders that allow exactly these layouts; TorchRec's own leave row-wise out on a CPU."""

    class Bags(EmbeddingBagCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return types

        def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
            return kernels

    class Sequences(EmbeddingCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return types

        def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
            return kernels

    if fused is None:
        # TorchRec's dense kernel mixes up the features of an unpooled collection on a CPU (1.8.0: values come out row by
        # row, keys feature by feature). Left unsharded, such a collection is an ordinary data-parallel module.
        return [Bags()]
    return [Bags(fused_params=dict(fused)), Sequences(fused_params=dict(fused))]


def _sharding_plan(model: nn.Module, sharders: list[ModuleSharder[Any]], device: torch.device) -> ShardingPlan:
    planner = EmbeddingShardingPlanner(topology=_topology(device))
    if dist.get_world_size() == 1:
        return planner.plan(model, sharders)
    return planner.collective_plan(model, sharders, dist.group.WORLD)


def _topology(device: torch.device) -> Topology:
    """This machine's memory: TorchRec would take every GPU for one of 32 GiB, in a host of 128 GiB a rank."""
    ranks = dist.get_world_size()
    if device.type == "cpu":
        return Topology(world_size=ranks, compute_device="cpu")
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Topology(
        world_size=ranks,
        compute_device=device.type,
        hbm_cap=torch.cuda.get_device_properties(device).total_memory,
        ddr_cap=host_bytes // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


def _with_optimizers(
    model: DistributedModelParallel, config: OptimizerConfig, device: torch.device, *, fused: bool
) -> Session:
    free = dict(in_backward_optimizer_filter(model.named_parameters()))
    tables = (
        {}
        if fused
        else {name: p for name, p in free.items() if ".embedding_bags." in name or ".embeddings.table" in name}
    )
    rest = {name: p for name, p in free.items() if name not in tables}
    optimizers: list[KeyedOptimizer | tuple[str, KeyedOptimizer]] = []
    if fused:
        optimizers.append(("tables", model.fused_optimizer))
    if tables:
        learning_rate = config.table_learning_rate
        optimizers.append(("tables", KeyedOptimizerWrapper(tables, lambda ps: torch.optim.Adam(ps, lr=learning_rate))))
    if rest:
        optimizers.append(("dense", KeyedOptimizerWrapper(rest, lambda ps: _dense_optimizer(ps, config))))
    return Session(
        model=model,
        optimizer=CombinedOptimizer(optimizers),
        device=device,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        table_parameters=list(tables.values()),
    )


def _dense_optimizer(parameters: list[torch.Tensor | ShardedTensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    dense: list[torch.Tensor] = list(parameters)  # TorchRec types them wider than what is not fused can be
    if config.dense is DenseOptimizer.ADAMW:
        return torch.optim.AdamW(dense, lr=config.dense_learning_rate, weight_decay=config.dense_weight_decay)
    return torch.optim.Adam(dense, lr=config.dense_learning_rate, weight_decay=config.dense_weight_decay)
