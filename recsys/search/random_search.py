"""`random`: widths at random within the budget, the best of some trials; the baseline of every other search."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from recsys.search.choice import Choice, Space
from recsys.search.memo import Memo
from recsys.search.method import Found, Score, TrialSearch
from recsys.search.proportions import REACH, proportional


@dataclass(frozen=True, kw_only=True)
class RandomSearchConfig(TrialSearch):
    """Draws the exponent of popularity from U(0, 1) and each feature's weight from U(-REACH, REACH), in powers of two.

    Every draw is then grown until it fills the budget, so that no trial is wasted on a plan of other bytes. The first
    trial is that of uniform widths: what is found is never worse than those, as far as the held-out part can tell.
    """

    def find(self, space: Space, score: Score, budget_bytes: int, *, seed: int, storage: Path) -> Found:
        """Score all trials on their whole learning curves and take the best."""
        generator = torch.Generator().manual_seed(seed)
        memo = Memo(storage, writes=True)
        best: Found | None = None
        for number in range(self.trials):
            choice = self._draw(space, budget_bytes, generator, uniform=number == 0)
            value = memo.get(f"trial {number}", partial(_curve, score, choice))[-1]
            if best is None or best.score is None or value > best.score:
                best = Found(budget_bytes=budget_bytes, choice=choice, score=value)
        assert best is not None
        return best

    def _draw(self, space: Space, budget_bytes: int, generator: torch.Generator, *, uniform: bool) -> Choice:
        drawn = torch.rand(1 + len(space.features), generator=generator, dtype=torch.float64) * (not uniform)
        weights = (2 * REACH * drawn[1:] - REACH) * (not uniform)
        return proportional(space, budget_bytes, exponent=float(drawn[0]), weights=weights.tolist())


def _curve(score: Score, choice: Choice) -> list[float]:
    return list(score(choice))
