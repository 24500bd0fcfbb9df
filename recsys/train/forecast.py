"""What each rank would hold, by TorchRec's planner: in one process, before anything is allocated or trained."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import EmbeddingModuleShardingPlan, EnumerableShardingSpec, ShardingPlan

from recsys.core.errors import ConfigError
from recsys.train.config import DeviceConfig, OptimizerConfig, TableOptimizer
from recsys.train.layout import check_layout, constraints, is_fused, sharders_for

STATE_WIDTHS = {TableOptimizer.SGD: 0, TableOptimizer.ADAGRAD: 1, TableOptimizer.ADAM: 2}
"""Values of optimizer state for each value of a table; row-wise Adagrad holds one a row."""


@dataclass(frozen=True, kw_only=True)
class TableForecast:
    """Where one table goes."""

    table: str
    sharding: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RankForecast:
    """Bytes of one rank's weights while training."""

    rank: int
    num_shards: int
    table_bytes: int  # float32, padded
    optimizer_bytes: int  # state of the tables' optimizer
    replicated_bytes: int  # what is not sharded: remaps, combiners, the dense part; without its optimizer


@dataclass(frozen=True)
class _Shard:
    table: str
    sharding: str
    rank: int
    sizes: tuple[int, ...]  # rows, columns


def forecast(
    model: nn.Module, optimizer: OptimizerConfig, run_on: DeviceConfig, *, num_ranks: int
) -> tuple[list[RankForecast], list[TableForecast]]:
    """Ask TorchRec's planner for `num_ranks` ranks, all on this machine.

    Args:
        model: with its tables on the meta device.
        optimizer: decides on kernels, hence on layouts.
        run_on: device and the layouts allowed.
        num_ranks: how many.

    Raises:
        ConfigError: the options exclude each other, or the tables do not fit.
    """
    device = torch.device(run_on.device)
    fused = is_fused(optimizer, device)
    check_layout(run_on, device, fused=fused)
    tables = [table for part in model.modules() for table in getattr(getattr(part, "plan", None), "tables", ())]
    allowed = constraints(tables, run_on, num_ranks=num_ranks) if fused else {}
    planner = EmbeddingShardingPlanner(topology=_topology(run_on.device, num_ranks), constraints=allowed)
    try:
        plan = planner.plan(model, sharders_for(optimizer, run_on, fused=fused))
    except PlannerError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the tables cannot be laid over {num_ranks} rank(s) of this machine: {reason} Use more ranks, "
            "run_on.sharding=auto or row_wise, or a smaller budget."
        ) from error
    shards = list(_shards(model, plan, num_ranks))
    sharded = {shard.table for shard in shards}
    rest = sum(
        tensor.numel() * tensor.element_size() for name, tensor in model.state_dict().items() if name not in sharded
    )
    ranks = [_rank(rank, [s for s in shards if s.rank == rank], optimizer.table, rest) for rank in range(num_ranks)]
    return ranks, _tables(shards)


def _rank(rank: int, shards: list[_Shard], optimizer: TableOptimizer, replicated_bytes: int) -> RankForecast:
    values = sum(math.prod(shard.sizes) for shard in shards)
    state = (
        sum(shard.sizes[0] for shard in shards) if optimizer not in STATE_WIDTHS else values * STATE_WIDTHS[optimizer]
    )
    return RankForecast(
        rank=rank,
        num_shards=len(shards),
        table_bytes=values * 4,
        optimizer_bytes=state * 4,
        replicated_bytes=replicated_bytes,
    )


def _tables(shards: list[_Shard]) -> list[TableForecast]:
    found: dict[tuple[str, str], list[int]] = {}
    for shard in shards:
        found.setdefault((shard.table, shard.sharding), []).append(shard.rank)
    return [
        TableForecast(table=table.split(".")[-2], sharding=sharding, ranks=tuple(sorted(set(ranks))))
        for (table, sharding), ranks in found.items()
    ]


def _shards(model: nn.Module, plan: ShardingPlan, num_ranks: int) -> Iterator[_Shard]:
    """Parts of every table that hold something."""
    weights = dict(model.named_parameters())
    for path, module in plan.plan.items():
        assert isinstance(module, EmbeddingModuleShardingPlan)
        for table, sharding in module.items():
            name = next(key for key in weights if key.startswith(f"{path}.") and key.split(".")[-2] == table)
            spec, kind = sharding.sharding_spec, str(sharding.sharding_type)
            if not isinstance(spec, EnumerableShardingSpec):  # data-parallel: whole on every rank
                yield from (_Shard(name, kind, rank, tuple(weights[name].shape)) for rank in range(num_ranks))
                continue
            for shard in spec.shards:
                if math.prod(shard.shard_sizes):
                    placement = shard.placement
                    assert placement is not None
                    yield _Shard(name, kind, int(placement.rank() or 0), tuple(shard.shard_sizes))


def _topology(device: str, num_ranks: int) -> Topology:
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    seen = device == "cuda" and torch.cuda.is_available()
    return Topology(
        world_size=num_ranks,
        local_world_size=num_ranks,
        compute_device=device,
        hbm_cap=torch.cuda.get_device_properties(0).total_memory if seen else None,
        ddr_cap=host_bytes // num_ranks,
    )
