"""A model on its ranks: process group, TorchRec sharding plan, `DistributedModelParallel`, optimizers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import TablePlan
from recsys.core.specs import TableSpec
from recsys.train.config import DenseOptimizer, DeviceConfig, OptimizerConfig, TableOptimizer
from recsys.train.layout import check_layout, constraints, is_fused, sharders_for, sharding_plan, undo_padding
from recsys.train.rows import forget_rows, read_rows, write_rows
from recsys.train.tables import table_of


@dataclass
class Session:
    """A sharded model with its optimizers on this rank."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    device: torch.device
    rank: int
    world_size: int
    # What embeddings are computed from, where it has gradients: tables that are not fused, weights of combiners.
    embedding_parameters: list[nn.Parameter]

    @property
    def is_main(self) -> bool:
        """True on the rank that writes and prints."""
        return self.rank == 0

    def scale_learning_rates(self, base: list[float], factor: float, floor: float) -> None:
        """Set each group's learning rate to `max(base * factor, floor)`."""
        for group, learning_rate in zip(self._groups, base, strict=True):
            group["lr"] = max(learning_rate * factor, min(floor, learning_rate))

    def learning_rates(self) -> list[float]:
        """Learning rate of each group: tables, one a kernel, then the dense part."""
        return [group["lr"] for group in self._groups]

    @property
    def _groups(self) -> list[dict[str, Any]]:
        # The optimizers' own dicts; typed as read-only by TorchRec.
        return list(self.optimizer.param_groups)  # type: ignore[arg-type]

    def read_rows(self, table: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows of a table, whichever ranks hold them; see `TrainingSession`."""
        self._flush_caches()
        weight, spec = self._stored[table]
        return read_rows(weight, spec, rows.to(self.device))

    def write_rows(self, table: str, rows: torch.Tensor, values: torch.Tensor, *, forget: bool = True) -> None:
        """Replace rows of a table; see `TrainingSession`."""
        self._flush_caches()
        weight, spec = self._stored[table]
        rows = rows.to(self.device)
        write_rows(weight, spec, rows, values.to(self.device))
        # Not kept as weights are: dense Adam makes its moments at the first step.
        for name, states in self.optimizer.state_dict()["state"].items() if forget else ():
            if name.endswith(f".{table}.weight") and isinstance(states, dict):
                forget_rows(weight, states, rows)
        self.weights_loaded()

    @cached_property
    def _stored(self) -> dict[str, tuple[torch.Tensor | ShardedTensor, TableSpec]]:
        """Weight and table by the table's name; weights share memory with the parameters for the session's life."""
        plans = [plan for part in self.model.modules() if isinstance(plan := getattr(part, "plan", None), TablePlan)]
        state = self.model.state_dict()
        found = [(table_of(key, plan), weight) for plan in plans for key, weight in state.items()]
        return {table.name: (weight, table) for table, weight in found if table is not None}

    def _flush_caches(self) -> None:
        for part in self._kernels:
            part.flush()

    @cached_property
    def _kernels(self) -> list[SplitTableBatchedEmbeddingBagsCodegen]:
        lookups = [lookup for module in self.model.modules() for lookup in getattr(module, "_lookups", ())]
        # TorchRec keeps them outside its module tree.
        parts = [part for lookup in lookups for part in lookup.modules()]
        return [part for part in parts if isinstance(part, SplitTableBatchedEmbeddingBagsCodegen)]

    def weights_loaded(self) -> None:
        """Forget the rows in device caches (`uvm_caching`), after something wrote weights through `state_dict()`.

        Such a write reaches host memory only, and look-ups would go on with the cached rows of before.
        """
        for part in self._kernels:
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
    """Lay the tables of the model's planned collections over the ranks and give everything its optimizer.

    Raises:
        ConfigError: the options exclude each other, or the tables do not fit.
    """
    fused = is_fused(optimizer, device)
    check_layout(run_on, device, fused=fused)
    tables = _tables(model)
    if optimizer.table is TableOptimizer.ROWWISE_ADAGRAD:
        undo_padding(model, tables, optimizer)
    sharders = sharders_for(optimizer, run_on, fused=fused)
    allowed = constraints(tables.values(), run_on, num_ranks=dist.get_world_size()) if fused else {}
    plan = sharding_plan(model, sharders, device, allowed)
    group = dist.group.WORLD
    assert group is not None
    for part in model.modules():
        if isinstance(part, (Remap, Combiner)):  # TorchRec moves modules without parameters only if others have some
            part.to(device)
    sharded = DistributedModelParallel(
        model, env=ShardingEnv.from_process_group(group), device=device, plan=plan, sharders=sharders
    )
    return _with_optimizers(sharded, optimizer, device, set() if fused else set(tables))


def _tables(model: nn.Module) -> dict[str, TableSpec]:
    """Tables of the planned collections inside, by parameter name; sharding does not change the names."""
    found = {}
    for path, module in model.named_modules():
        plan = getattr(module, "plan", None)
        if isinstance(plan, TablePlan):
            for name, _ in module.named_parameters(prefix=path):
                table = table_of(name, plan)
                if table is not None:
                    found[name] = table
    return found


def _with_optimizers(
    model: DistributedModelParallel, config: OptimizerConfig, device: torch.device, dense_tables: set[str]
) -> Session:
    """The session; `dense_tables` are the parameters with gradients of whole tables, or none if tables are fused."""
    free = dict(in_backward_optimizer_filter(model.named_parameters()))
    assert dense_tables <= free.keys()
    tables = {name: p for name, p in free.items() if name in dense_tables}
    rest = {name: p for name, p in free.items() if name not in dense_tables}
    optimizers: list[KeyedOptimizer | tuple[str, KeyedOptimizer]] = []
    if tables:
        learning_rate = config.table_learning_rate
        optimizers.append(
            ("tables", KeyedOptimizerWrapper(tables, lambda ps: torch.optim.Adam(ps, lr=learning_rate, fused=True)))
        )
    else:
        optimizers.append(("tables", model.fused_optimizer))
    if rest:
        optimizers.append(("dense", KeyedOptimizerWrapper(rest, lambda ps: _dense_optimizer(ps, config))))
    return Session(
        model=model,
        optimizer=CombinedOptimizer(optimizers),
        device=device,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        embedding_parameters=[*tables.values(), *_combiner_parameters(model)],
    )


def _combiner_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Weights of networks, projections and codebooks, each once; combiners may lie within one another."""
    combiners = [module for module in model.modules() if isinstance(module, Combiner)]
    return list(dict.fromkeys(parameter for combiner in combiners for parameter in combiner.parameters()))


def _dense_optimizer(parameters: list[torch.Tensor | ShardedTensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    dense: list[torch.Tensor] = list(parameters)  # TorchRec types them wider than what is not fused can be
    if config.dense is DenseOptimizer.ADAMW:
        return torch.optim.AdamW(dense, lr=config.dense_learning_rate, weight_decay=config.dense_weight_decay)
    return torch.optim.Adam(dense, lr=config.dense_learning_rate, weight_decay=config.dense_weight_decay)
