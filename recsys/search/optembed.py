"""`optembed`: which rows and which widths, in one supernet (Lyu et al., CIKM 2022, arXiv:2208.04482).

A row is shown if its L1 norm is above its feature's threshold, which is learned: a penalty pushes it up, and what the
loss loses without the row holds it down. While training, each look-up shows a random prefix of its row, so that all
widths are trained. Then widths are searched by evolution, in the trained supernet; the plan that is found is retrained.

Differences: mutation copies, crossover cuts between features, and a choice is grown until it fills the budget. The ids
that survive are counted, and the plan keeps so many of the most frequent ones, because ids rank by frequency and a
threshold of ranks takes no memory, where any set of ids needs a bit each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.embeddings.method import num_ids
from recsys.search.choice import Choice, Space
from recsys.search.draws import draw_by_row, rows_of_ids, step_generator
from recsys.search.evolution import Evolution, Genes, evolve
from recsys.search.fit import by_width, fit
from recsys.search.masks import Mask, masks_in, supernet_plan, try_out
from recsys.search.memo import Memo
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision
from recsys.search.structure import StructureLearning
from recsys.search.thresholds import row_margins, step_function

STRICTNESS = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Shares of the surviving rows, those nearest above their thresholds first, that a choice may leave out as well."""


class RowsAndPrefixes(Mask):
    """Rows above the threshold; while training, the prefix of each look-up that the step drew, whole rows otherwise."""

    threshold: Tensor

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.register_buffer("threshold", torch.zeros(1))
        self.widths: Tensor | None = None  # int64 (N,), of the step's look-ups; or (number of ids,), of ids
        self.by_id = False  # which of both

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Gate and, while training, cut."""
        shown = row * step_function(row.abs().sum(1, keepdim=True) - self.threshold)
        if not self.training or self.widths is None:
            return shown
        widths = self.widths[ids] if self.by_id else self.widths
        return shown * (torch.arange(self.embedding_dim, device=row.device) < widths.unsqueeze(1))


@dataclass(frozen=True, kw_only=True)
class OptEmbedConfig(SupernetSearch):
    """The learning rate and the weight of the penalty are those of DeepFM on Criteo in the paper's repository."""

    threshold_learning_rate: float = 1e-4
    sparsity: float = 1e-4  # weight of the sum over features of exp(-threshold) in the loss
    evolution: Evolution = field(default_factory=Evolution)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold_learning_rate <= 0 or self.sparsity < 0:
            raise ConfigError(
                f"search.threshold_learning_rate={self.threshold_learning_rate}, search.sparsity={self.sparsity}: the "
                "first must be above 0, the second 0 or more."
            )

    def supernet(self, space: Space) -> TablePlan:
        """Full tables behind `RowsAndPrefixes`."""
        return supernet_plan(space, RowsAndPrefixes)

    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What draws widths, and what learns the thresholds."""
        return [WidthDraws(space, given), ThresholdLearning(space, self)]

    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """Evolve widths, and how many rows, for each budget."""
        masks = masks_in(supernet.session.model, space)
        candidates = Candidates(space, _kept(supernet.session, space, masks))
        memo = Memo(storage, writes=supernet.session.is_main)
        found = []
        for budget in budgets:

            def score(genes: Genes, budget: int = budget) -> float:
                try_out(masks, candidates.choice(genes, budget))
                return memo.get(f"{budget} {genes}", lambda: [supernet.score()])[0]

            generator = torch.Generator().manual_seed(seed)
            best = evolve(self.evolution, candidates.sizes, score, candidates.first, generator)
            choice, value = candidates.choice(best, budget), score(best)
            found.append(Found(budget_bytes=budget, choice=choice, score=value))
        try_out(masks, None)
        return found


class WidthDraws(Callback):
    """Draws a width of each feature in each row of a step, or of each id where steps look all of them up once.

    By the seed, the step and the row's place in the global batch alone: ranks show what one process shows.
    """

    def __init__(self, space: Space, given: Supervision) -> None:
        self._space, self._given = space, given
        self._masks: list[Mask] = []

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the masks."""
        self._masks = masks_in(session.model, self._space)

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Draw."""
        generator, features = step_generator(self._given.seed, step), self._space.features
        dims = [feature.embedding_dim for feature in features]
        by_row = []
        if self._given.looks_up_batches:
            by_row = draw_by_row(batch, dims, generator, rank=session.rank, world_size=session.world_size)
        for number, (feature, mask) in enumerate(zip(features, self._masks, strict=True)):
            assert isinstance(mask, RowsAndPrefixes)
            mask.by_id = not by_row
            if by_row:
                mask.widths = by_row[number].to(session.device)[rows_of_ids(feature, batch)]
            else:
                drawn = torch.randint(1, dims[number] + 1, (num_ids(feature),), generator=generator)
                mask.widths = drawn.to(session.device)


class ThresholdLearning(StructureLearning):
    """Adam on the thresholds, by the gradient of the training loss and of the penalty."""

    def __init__(self, space: Space, config: OptEmbedConfig) -> None:
        super().__init__(config.threshold_learning_rate)
        self._space, self._sparsity = space, config.sparsity

    def structure(self, session: TrainingSession) -> list[Tensor]:
        """Threshold of each feature."""
        return thresholds_of(masks_in(session.model, self._space))

    def penalty(self, session: TrainingSession, rows: int) -> Tensor | None:
        """Sparsity times the sum of exp(-threshold); this rank's share of it."""
        total = torch.cat([torch.exp(-threshold) for threshold in self._buffers]).sum()
        return self._sparsity / session.world_size * total


class Candidates:
    """Genes to choices: how many rows are left out, then of each feature the relative width less 1."""

    def __init__(self, space: Space, kept: Sequence[Sequence[int]]) -> None:
        """Cut the space for each strictness.

        Args:
            space: of the supernet.
            kept: for each of STRICTNESS the number of kept ids of every feature.
        """
        self._kept, self._spaces = kept, [space.cut(own) for own in kept]
        # Widths are relative, so a feature that is narrower than others may ask for as much as they.
        widest = max(feature.embedding_dim for feature in space.features)
        self.sizes = [len(kept), *[widest] * len(space.features)]
        self.first = [(level, *[widest - 1] * len(space.features)) for level in range(len(kept))]

    def choice(self, genes: Genes, budget_bytes: int) -> Choice:
        """Widths of kept ids in proportion to their genes; the others get what is left, which is seldom anything."""
        space, kept = self._spaces[genes[0]], self._kept[genes[0]]
        inside = [
            [float(gene + 1) * (block.first < count) for block in own]
            for own, gene, count in zip(space.blocks, genes[1:], kept, strict=True)
        ]
        outside = [
            [float(gene + 1) * (block.first >= count) for block in own]
            for own, gene, count in zip(space.blocks, genes[1:], kept, strict=True)
        ]
        return fit(space, [*by_width(space, inside), *by_width(space, outside)], budget_bytes)


def _kept(session: TrainingSession, space: Space, masks: Sequence[Mask]) -> list[list[int]]:
    """How many ids of each feature have rows, at each strictness; at least one."""
    margins = row_margins(session, space, [float(threshold) for threshold in thresholds_of(masks)])
    alive = torch.cat([own[own > 0] for own in margins]).sort().values
    levels = [
        float(alive[int(share * (alive.numel() - 1))]) if share and alive.numel() else 0.0 for share in STRICTNESS
    ]
    return [[max(1, int((own > level).sum())) for own in margins] for level in levels]


def thresholds_of(masks: Sequence[Mask]) -> list[Tensor]:
    """Threshold of each feature, (1,)."""
    return [mask.threshold for mask in masks if isinstance(mask, RowsAndPrefixes)]
