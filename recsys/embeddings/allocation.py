"""Share out a budget of bytes among features that can each be served in several ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from recsys.core.plan import TablePlan


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to serve one feature."""

    plan: TablePlan
    num_bytes: int  # of the plan
    loss: float  # expected, of one look-up; comparable between features


def allocate(options: Sequence[Sequence[Option]], budget_bytes: int) -> list[int]:
    """Choose an option of each feature so that the sum of losses is small within the budget.

    Every feature starts at its smallest option. Steps along the lower convex hull of its (bytes, loss) points are then
    taken in the order of loss saved per byte, which is optimal up to the last step; what is left goes where it helps.

    Returns:
        For each feature the position of its option; the smallest ones where even those are above the budget.
    """
    hulls = [_hull(choices) for choices in options]
    at = [0] * len(hulls)
    left = budget_bytes - sum(choices[hull[0]].num_bytes for choices, hull in zip(options, hulls, strict=True))
    steps = []
    for feature, (choices, hull) in enumerate(zip(options, hulls, strict=True)):
        for place, (low, high) in enumerate(pairwise(hull)):
            steps.append((-_gain(choices[low], choices[high]), feature, place, _cost(choices[low], choices[high])))
    for _, feature, place, cost in sorted(steps):
        if at[feature] == place and cost <= left:
            at[feature], left = place + 1, left - cost
    chosen = [hull[place] for hull, place in zip(hulls, at, strict=True)]
    for feature in sorted(range(len(options)), key=lambda f: -options[f][chosen[f]].loss):
        choices, now = options[feature], options[feature][chosen[feature]]
        within = [n for n, option in enumerate(choices) if option.num_bytes - now.num_bytes <= max(left, 0)]
        best = min(within, key=lambda n: (choices[n].loss, choices[n].num_bytes))
        if choices[best].loss < now.loss:
            chosen[feature], left = best, left - _cost(now, choices[best])
    return chosen


def _cost(low: Option, high: Option) -> int:
    return high.num_bytes - low.num_bytes


def _gain(low: Option, high: Option) -> float:
    """Loss saved per byte."""
    return (low.loss - high.loss) / _cost(low, high)


def _hull(choices: Sequence[Option]) -> list[int]:
    """Positions of options on the lower convex hull, from the smallest: more bytes, less loss, less gain each."""
    hull: list[int] = []
    for number in sorted(range(len(choices)), key=lambda n: (choices[n].num_bytes, choices[n].loss)):
        option = choices[number]
        if hull and option.loss >= choices[hull[-1]].loss:
            continue
        while len(hull) > 1 and _gain(choices[hull[-1]], option) >= _gain(choices[hull[-2]], choices[hull[-1]]):
            hull.pop()
        hull.append(number)
    return hull
