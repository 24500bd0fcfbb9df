"""`matryoshka`: nested prefixes in one supernet, any of which can be cut out (Kusupati et al., NeurIPS 2022).

The published loss is the sum over prefix widths of the loss with all embeddings cut to that width. Here every step
draws one width for all features: its expected gradient is that of the mean over widths, and tables are looked up and
updated once a step, so that fused optimizers stay exact. A cut needs no retraining: the rows of the trained tables up
to the chosen width are those of the plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.search.choice import Space
from recsys.search.draws import step_generator
from recsys.search.masks import Mask, masks_in, supernet_plan, try_out
from recsys.search.memo import Memo
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision
from recsys.search.proportions import proportional


class Prefix(Mask):
    """While training, the share of the columns that the step has drawn; all of them otherwise."""

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.share = 1.0

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Cut while training."""
        width = prefix_width(self.share, self.embedding_dim)
        if not self.training or width == self.embedding_dim:
            return row
        return row * (torch.arange(self.embedding_dim, device=row.device) < width)


def prefix_width(share: float, embedding_dim: int) -> int:
    """The width nearest to that share of all columns, at least 1."""
    return max(1, round(share * embedding_dim))


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(SupernetSearch):
    """Prefixes of all features alike; of blocks by popularity ** exponent, the best of some exponents."""

    slices: ClassVar[bool] = True
    halvings: int = 4  # prefixes trained: all columns, a half, a quarter …
    exponents: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.3])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halvings < 1:
            raise ConfigError(f"search.halvings={self.halvings}: must be 1 or more, or there is no prefix to cut out.")
        if not self.exponents or min(self.exponents) < 0:
            raise ConfigError(f"search.exponents={self.exponents}: one or more, none below 0. [0.0] cuts all alike.")

    def supernet(self, space: Space) -> TablePlan:
        """Full tables behind `Prefix`."""
        return supernet_plan(space, Prefix)

    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What draws the prefix of each step."""
        return [PrefixDraws(space, self.halvings, given.seed)]

    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """For each budget, score the prefixes of every exponent."""
        masks = masks_in(supernet.session.model, space)
        memo = Memo(storage, writes=supernet.session.is_main)
        found = []
        for budget in budgets:
            tried = []
            for exponent in self.exponents:
                choice = proportional(space, budget, exponent=exponent, weights=[0.0] * len(space.features))
                try_out(masks, choice)
                value = memo.get(f"{budget} {exponent}", lambda: [supernet.score()])[0]
                tried.append(Found(budget_bytes=budget, choice=choice, score=value))
            found.append(max(tried, key=lambda each: each.score or 0.0))
        try_out(masks, None)
        return found


class PrefixDraws(Callback):
    """Draws 2 ** -k with k uniform in [0, halvings], the same on all ranks, by the seed and the step alone."""

    def __init__(self, space: Space, halvings: int, seed: int) -> None:
        self._space, self._halvings, self._seed = space, halvings, seed
        self._masks: list[Mask] = []

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the masks."""
        self._masks = masks_in(session.model, self._space)

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Draw."""
        drawn = torch.randint(self._halvings + 1, (1,), generator=step_generator(self._seed, step))
        share = 0.5 ** int(drawn)
        for mask in self._masks:
            assert isinstance(mask, Prefix)
            mask.share = share
