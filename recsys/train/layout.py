"""Where tables go and which kernel updates them: TorchRec's sharders, its planner, this machine's memory."""

import math
import os
import re
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import ModuleSharder, ShardingPlan
from torchrec.optim import RowWiseAdagrad

from recsys.core.errors import ConfigError
from recsys.core.specs import TableSpec
from recsys.train.config import DeviceConfig, OptimizerConfig, Sharding, TableMemory, TableOptimizer

FUSED_OPTIMIZERS = {
    TableOptimizer.ROWWISE_ADAGRAD: EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    TableOptimizer.ADAGRAD: EmbOptimType.EXACT_ADAGRAD,
    TableOptimizer.SGD: EmbOptimType.EXACT_SGD,
    TableOptimizer.ADAM: EmbOptimType.ADAM,
}

EPSILON = 1e-8
"""Of fused optimizers."""


def is_fused(optimizer: OptimizerConfig, device: torch.device) -> bool:
    """Whether tables are updated inside FBGEMM's backward pass; else they get gradients, of whole tables."""
    # A regulariser adds to gradients of whole tables, and a fused table has none. On a CPU FBGEMM has no Adam.
    return optimizer.table is not TableOptimizer.ADAM or (device.type == "cuda" and not optimizer.table_regularizer)


def check_layout(run_on: DeviceConfig, device: torch.device, *, fused: bool) -> None:
    """Refuse what the kernel cannot do.

    Args:
        run_on: the layout wanted.
        device: of this rank.
        fused: see `is_fused`.

    Raises:
        ConfigError: with what to set instead.
    """
    if not fused and run_on.sharding not in (Sharding.AUTO, Sharding.DATA_PARALLEL):
        raise ConfigError(
            f"run_on.sharding={run_on.sharding.value}: Adam on a CPU, or with a regularizer, runs through TorchRec's "
            "dense kernel, which replicates tables on every rank. Set run_on.sharding=data_parallel, or "
            "optimizer.table=rowwise_adagrad to shard."
        )
    if fused and run_on.sharding is Sharding.DATA_PARALLEL:
        raise ConfigError(
            "run_on.sharding=data_parallel keeps whole tables on every rank, so it needs optimizer.table=adam, and on "
            "a GPU optimizer.table_regularizer above 0, or else tables are fused. Set run_on.sharding=auto."
        )
    if run_on.table_memory is not TableMemory.UVM_CACHING:
        return
    if device.type == "cpu":
        raise ConfigError(
            "run_on.table_memory=uvm_caching keeps tables in host memory behind a GPU's cache, and run_on.device=cpu "
            "has no GPU. Set run_on.table_memory=device."
        )
    if not fused:
        raise ConfigError(
            "run_on.table_memory=uvm_caching keeps tables behind a cache of rows, and optimizer.table_regularizer "
            "reads whole tables every step. Set run_on.table_memory=device, or optimizer.table_regularizer=0."
        )


def sharders_for(optimizer: OptimizerConfig, run_on: DeviceConfig, *, fused: bool) -> list[ModuleSharder[Any]]:
    """Sharders of exactly the layouts and kernels that the configuration allows; `fused`: see `is_fused`."""
    if not fused:
        return _of(None, [Sharding.DATA_PARALLEL.value], [EmbeddingComputeKernel.DENSE.value])
    split = [s.value for s in Sharding if s not in (Sharding.AUTO, Sharding.DATA_PARALLEL)]
    # Table-wise always: `constraints` sends the tables there that cannot be split.
    types = split if run_on.sharding is Sharding.AUTO else sorted({run_on.sharding.value, Sharding.TABLE_WISE.value})
    parameters: dict[str, Any] = {
        "optimizer": FUSED_OPTIMIZERS[optimizer.table],
        "learning_rate": optimizer.table_learning_rate,
        "eps": EPSILON,
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
        # TorchRec's dense kernel mixes up the features of an unpooled collection on a CPU (1.8.0: values come out row
        # by row, keys feature by feature). Left unsharded, such a collection is an ordinary data-parallel module.
        return [Bags()]
    return [Bags(fused_params=dict(fused)), Sequences(fused_params=dict(fused))]


def undo_padding(model: nn.Module, tables: dict[str, TableSpec], config: OptimizerConfig) -> None:
    """Make the fused row-wise Adagrad of padded tables the exact one of their own width.

    FBGEMM averages a row's squared gradient g over the stored width D, though only the table's d columns have one:
    its step, lr g / (sqrt(sum g^2 / D) + eps), is too long by sqrt(D / d). Both lr and eps times sqrt(d / D) give
    lr g / (sqrt(sum g^2 / d) + eps). TorchRec puts tables with equal values into one kernel.

    Column-wise sharding averages over the columns of a shard, padded or not; that stays as it is.
    """
    for name, table in tables.items():
        if table.embedding_dim == table.storage_dim:
            continue
        ratio = math.sqrt(table.embedding_dim / table.storage_dim)
        # What TorchRec reads per table and puts above the sharder's values; the hook is for unsharded parameters.
        values = {"lr": config.table_learning_rate * ratio, "eps": EPSILON * ratio}
        _apply_optimizer_in_backward(RowWiseAdagrad, [model.get_parameter(name)], values, register_hook=False)


def constraints(
    tables: Iterable[TableSpec], run_on: DeviceConfig, *, num_ranks: int
) -> dict[str, ParameterConstraints]:
    """What the planner may do with each table, by its name.

    A table with so few rows that splitting them would leave a rank without any is kept whole: FBGEMM's row-wise Adagrad
    on a CPU reads beyond its tables' sizes where the last of a kernel has no rows, and now and then refuses "more than
    2B rows" (1.8.0).
    """
    types = [s.value for s in Sharding if s is not Sharding.DATA_PARALLEL and s is not Sharding.AUTO]
    if run_on.sharding is not Sharding.AUTO:
        types = [run_on.sharding.value]
    whole = [Sharding.TABLE_WISE.value]
    found = {}
    for table in tables:
        share = math.ceil(table.num_embeddings / num_ranks)
        splits = (num_ranks - 1) * share < table.num_embeddings
        rows_split = Sharding.ROW_WISE.value in types
        found[table.name] = ParameterConstraints(sharding_types=types if splits or not rows_split else whole)
    return found


def sharding_plan(
    model: nn.Module,
    sharders: list[ModuleSharder[Any]],
    device: torch.device,
    allowed: dict[str, ParameterConstraints],
) -> ShardingPlan:
    """TorchRec's choice of ranks for every table, the same on all ranks; `allowed`: see `constraints`.

    Raises:
        ConfigError: nothing that the sharders allow fits into memory.
    """
    planner = EmbeddingShardingPlanner(topology=topology(device), constraints=allowed)
    try:
        if dist.get_world_size() == 1:
            return planner.plan(model, sharders)
        return planner.collective_plan(model, sharders, dist.group.WORLD)
    except PlannerError as error:
        raise _unplannable(str(error), device) from error


def _unplannable(reason: str, device: torch.device) -> ConfigError:
    """TorchRec's page of text in a few sentences."""
    amounts = [
        re.search(rf"{what} for model parallel: Storage\(hbm = (.*?), ddr = (.*?)\)", reason)
        for what in ("requirement", "available")
    ]
    needed, given = (m and f"{m[1]} of GPU memory and {m[2]} of host memory" for m in amounts)
    memory = f"The tables need {needed}; all ranks together have {given}. " if needed and given else ""
    behind_cache = " set run_on.table_memory=uvm_caching," if device.type == "cuda" else ""
    return ConfigError(
        f"the tables cannot be laid over {dist.get_world_size()} rank(s): {reason.strip().splitlines()[0].strip()} "
        f"{memory}Set run_on.sharding=auto or row_wise, so that a table may span ranks,{behind_cache} "
        "use more ranks, or make the tables smaller with a compressing embedding."
    )


def topology(device: torch.device) -> Topology:
    """This machine's memory: TorchRec would take every GPU for one of 32 GiB, in a host of 128 GiB a rank."""
    ranks = dist.get_world_size()
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks)))
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Topology(
        world_size=ranks,
        local_world_size=ranks_here,
        compute_device=device.type,
        hbm_cap=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        ddr_cap=host_bytes // ranks_here,
    )
