"""`random`: widths at random within the budget, the best of some trials; the baseline of every other search."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from recsys.search.choice import Choice, Space
from recsys.search.memo import Memo
from recsys.search.method import Found, Score, TrialSearch
from recsys.search.proportions import REACH, Setting, choice_of


@dataclass(frozen=True, kw_only=True)
class RandomSearchConfig(TrialSearch):
    """Draws the exponent of popularity from U(0, 1), each feature's weight from U(-REACH, REACH), and its way.

    Every draw is then grown until it fills the budget, so that no trial is wasted on a plan of other bytes. The first
    trial is that of uniform widths: what is found is never worse than those, as far as the held-out part can tell.
    """

    def find(self, space: Space, score: Score, budget_bytes: int, *, seed: int, storage: Path) -> Found:
        """Score all trials on their whole learning curves and take the best."""
        generator = torch.Generator().manual_seed(seed)
        memo = Memo(storage, writes=True)
        best: Found | None = None
        for number in range(self.trials):
            drawn = self._draw(len(space.features), generator)
            choice = choice_of(space, budget_bytes, drawn if number else Setting.first(space, self.ways))
            value = memo.get(f"trial {number}", partial(_curve, score, choice))[-1]
            if best is None or best.score is None or value > best.score:
                best = Found(budget_bytes=budget_bytes, choice=choice, score=value)
        assert best is not None
        return best

    def _draw(self, num_features: int, generator: torch.Generator) -> Setting:
        drawn = torch.rand(1 + num_features, generator=generator, dtype=torch.float64)
        ways = torch.randint(len(self.ways), (num_features,), generator=generator)
        weights = 2 * REACH * drawn[1:] - REACH
        return Setting(float(drawn[0]), tuple(weights.tolist()), tuple(self.ways[way] for way in ways.tolist()))


def _curve(score: Score, choice: Choice) -> list[float]:
    return list(score(choice))
