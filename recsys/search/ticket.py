"""Tables that start as part of a supernet's did: a lottery ticket (Frankle and Carbin, ICLR 2019), as PEP retrains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.initial import BLOCK_ROWS, initial_block
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.method import MethodConfig, full_table
from recsys.search.choice import Choice, Space, with_rows
from recsys.search.plans import plan_of


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of a table come from."""

    table: str
    source: TableSpec  # of the supernet
    first: int  # row
    num_rows: int
    columns: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TicketConfig(MethodConfig):
    """The method that stands beside a plan whose tables start as the supernet's did under its seed."""

    seed: int = 0
    origins: list[Origin] = field(default_factory=list)

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Not used: the plan is made."""
        raise ConfigError("a lottery ticket belongs to the plan of a search. Set embedding=plan with that plan's path.")

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """What gives tables their rows before the first step."""
        return [TicketRows(self)]


def ticket_of(space: Space, choice: Choice, seed: int) -> TicketConfig:
    """The ticket of a choice, drawn from a supernet that started with `seed`."""
    origins, plan = [], plan_of(space, choice)
    for entry, feature, pieces in zip(plan.features, space.features, choice.features, strict=True):
        (source,) = full_table(feature, space.init).tables
        origins += [
            Origin(table=table, source=source, first=first, num_rows=piece.size, columns=piece.columns)
            for table, (first, piece) in zip(entry.tables, with_rows(pieces), strict=True)
        ]
    return TicketConfig(seed=seed, origins=origins, init=space.init)


class TicketRows(Callback):
    """Writes initial rows once, before the first step; a run that goes on has moved them since."""

    def __init__(self, config: TicketConfig) -> None:
        self._config, self._goes_on = config, False

    def on_train_start(self, session: TrainingSession) -> None:
        """Write all rows of all tables."""
        if not self._goes_on:
            for origin in self._config.origins:
                for rows, values in initial_rows(origin, self._config.seed):
                    session.write_rows(origin.table, rows, values)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is a checkpoint: leave its rows alone."""
        self._goes_on = True


def initial_rows(origin: Origin, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows of the origin's table, their initial values), the supernet's block by block."""
    end = origin.first + origin.num_rows
    for block in range(origin.first // BLOCK_ROWS, (end - 1) // BLOCK_ROWS + 1):
        start = block * BLOCK_ROWS
        low, high = max(start, origin.first), min(start + BLOCK_ROWS, end)
        values = initial_block(origin.source, block, seed)[low - start : high - start]
        yield torch.arange(low, high) - origin.first, values[:, list(origin.columns)]
