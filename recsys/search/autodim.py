"""`autodim`: a mixture of widths, whose weights learn from held-out rows (Zhao et al., WWW 2021, arXiv:2006.14827).

Each candidate width reads that many first columns of a row, transforms them linearly to the full width and normalises
over the batch, without scale and bias, so that no candidate wins by the size of its numbers. A block's embedding is the
mixture of these by Gumbel-softmax weights of its alpha, whose temperature falls. alpha learns from held-out rows, the
weights from training rows, in turn (first order).

Candidates share one table, the paper's cheaper form ("weight-sharing embeddings"). Differences: alpha is of a block of
ids, where the paper has one of each feature; columns are bought in the order of the probability that their block is so
wide, where the paper takes the likeliest width and meets no budget; what is found is padded, not transformed, so that
its bytes are its rows. A mixture does not tell what one narrow table would score: choices have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.search.choice import Space
from recsys.search.draws import step_generator
from recsys.search.fit import Column, fit
from recsys.search.held_learning import HeldMask, HeldOutLearning
from recsys.search.masks import masks_in, supernet_plan
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision
from recsys.search.structure import BufferAdam

COLDEST = 0.01
"""Temperature that is not passed, as published."""


def candidate_widths(embedding_dim: int) -> list[int]:
    """Powers of two below the full width, and that."""
    return [1 << power for power in range(embedding_dim.bit_length()) if 1 << power < embedding_dim] + [embedding_dim]


class WidthMixture(HeldMask):
    """Prefixes of a row, each transformed and normalised, mixed by the weights of the row's block."""

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.widths = candidate_widths(embedding_dim)
        self.temperature = 1.0
        self.generator: torch.Generator | None = None  # of the step's noise; None: torch's own
        self.register_buffer("alpha", torch.zeros(len(sizes), len(self.widths)))
        self.transforms = nn.ModuleList(nn.Linear(width, embedding_dim) for width in self.widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(embedding_dim, affine=False) for _ in self.widths)

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Mix."""
        row = self.passed(row)
        weights = self._weights()[self.blocks_of(ids)]
        mixed = torch.zeros_like(row)
        for number, width in enumerate(self.widths):
            wide = self._normalised(number, self.transforms[number](row[:, :width]))
            mixed = mixed + weights[:, number : number + 1] * wide
        return mixed

    def _weights(self) -> Tensor:
        """Of each block's candidates, (blocks, candidates): noisy while the structure or the weights learn."""
        scores = self.alpha.log_softmax(1)
        if self.training or self.learns:
            # The step's, which is the same on every rank: the noise is of blocks, not of rows.
            noise = torch.rand(scores.shape, generator=self.generator).to(scores.device)
            scores = scores - (-noise.clamp(1e-10, 1 - 1e-7).log()).log()
        return (scores / self.temperature).softmax(1)

    def _normalised(self, number: int, wide: Tensor) -> Tensor:
        norm = self.norms[number]
        assert isinstance(norm, nn.BatchNorm1d)
        batch = self.training and wide.shape[0] > 1  # one row alone has no variance
        return nn.functional.batch_norm(wide, norm.running_mean, norm.running_var, training=batch, eps=norm.eps)


@dataclass(frozen=True, kw_only=True)
class AutoDimConfig(SupernetSearch):
    """The rates are published ones; short trainings need larger."""

    alpha_learning_rate: float = 1e-3
    cooling: float = 5e-5  # of the temperature, a step

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha_learning_rate <= 0 or self.cooling < 0:
            raise ConfigError(
                f"search.alpha_learning_rate={self.alpha_learning_rate}, search.cooling={self.cooling}: the first must "
                "be above 0, the second 0 or more."
            )

    def supernet(self, space: Space) -> TablePlan:
        """Full tables behind `WidthMixture`."""
        return supernet_plan(space, WidthMixture)

    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What learns the mixtures."""
        return [MixtureLearning(space, self, given)]

    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """Buy columns in the order of the probability that their block is so wide, as far as each budget goes."""
        order = probable_columns(space, mixtures_in(supernet.session, space))
        return [Found(budget_bytes=budget, choice=fit(space, order, budget), score=None) for budget in budgets]


def mixtures_in(session: TrainingSession, space: Space) -> list[WidthMixture]:
    """The masks of the supernet."""
    return [mask for mask in masks_in(session.model, space) if isinstance(mask, WidthMixture)]


def probable_columns(space: Space, mixtures: Sequence[WidthMixture]) -> list[Column]:
    """All columns of all blocks by the probability that the block has them; of equal ones small blocks first."""
    jumps = []
    for feature, block in space.block_numbers:
        mixture = mixtures[feature]
        chances = mixture.alpha[block].softmax(0).tolist()
        size = space.blocks[feature][block].size
        for column in range(mixture.embedding_dim):
            chance = sum(p for width, p in zip(mixture.widths, chances, strict=True) if width > column)
            jumps.append((-round(chance, 6), size, feature, block, column))
    return [Column(feature, block, column) for _, _, feature, block, column in sorted(jumps)]


class MixtureLearning(HeldOutLearning):
    """Adam on alpha, by gradients of held-out rows; and the temperature."""

    def __init__(self, space: Space, config: AutoDimConfig, given: Supervision) -> None:
        super().__init__(space, given, warm_up=0)
        self._cooling, self._seed = config.cooling, given.seed
        self._adam = BufferAdam(config.alpha_learning_rate)

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the masks."""
        super().on_train_start(session)
        self._adam.start([mask.alpha for mask in self._masks])

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Cool down, and begin the step's noise."""
        generator = step_generator(self._seed, step)
        for mask in self._masks:
            assert isinstance(mask, WidthMixture)
            mask.temperature, mask.generator = max(COLDEST, 1.0 - self._cooling * step), generator

    def update(self, alphas: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """One step of all."""
        self._adam.step(alphas, gradients)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As it was."""
        self._adam.load_state_dict(state)
