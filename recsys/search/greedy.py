"""`greedy`: one change at a time, kept if it helps; the plainest search that looks at scores."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from recsys.search.choice import Space
from recsys.search.memo import Memo
from recsys.search.method import Found, Score, TrialSearch
from recsys.search.proportions import REACH, Setting, choice_of

T = TypeVar("T")

STEP = 0.25
"""Change of the exponent of popularity, which lies in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class GreedyConfig(TrialSearch):
    """From uniform widths: doubles and halves what a feature gets, changes its way, raises and lowers the exponent.

    Round after round over all of these, until the trials are spent or a whole round has helped nothing. Every trial is
    trained to its last rung. The seed decides nothing but how trials are trained.
    """

    def find(self, space: Space, score: Score, budget_bytes: int, *, seed: int, storage: Path) -> Found:
        """Climb."""
        memo = Memo(storage, writes=True)
        tried: dict[Setting, float] = {}

        def value(setting: Setting) -> float:
            if setting not in tried:
                choice = choice_of(space, budget_bytes, setting)
                tried[setting] = memo.get(_key(setting), lambda: list(score(choice)))[-1]
            return tried[setting]

        best = Setting.first(space, self.ways)
        value(best)
        improved = True
        while improved:
            improved = False
            for move in range(self._num_moves(space)):
                for other in self._moved(best, move):
                    if other not in tried and len(tried) >= self.trials:
                        return self._found(space, budget_bytes, best, value(best))
                    if value(other) > value(best):
                        best, improved = other, True
        return self._found(space, budget_bytes, best, value(best))

    def _num_moves(self, space: Space) -> int:
        return 1 + len(space.features)

    def _moved(self, setting: Setting, move: int) -> Iterator[Setting]:
        """The neighbours of a setting in the exponent (move 0) or in a feature."""
        if not move:
            for change in (STEP, -STEP):
                if 0 <= setting.exponent + change <= 1:
                    yield replace(setting, exponent=setting.exponent + change)
            return
        place = move - 1
        for change in (1.0, -1.0):
            if abs(setting.weights[place] + change) <= REACH:
                yield replace(setting, weights=_with(setting.weights, place, setting.weights[place] + change))
        for way in self.ways:
            if way is not setting.ways[place]:
                yield replace(setting, ways=_with(setting.ways, place, way))

    def _found(self, space: Space, budget_bytes: int, setting: Setting, score: float) -> Found:
        choice = choice_of(space, budget_bytes, setting)
        return Found(budget_bytes=budget_bytes, choice=choice, score=score)


def _with(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _key(setting: Setting) -> str:
    return f"{setting.exponent} {setting.weights} {[way.value for way in setting.ways]}"
