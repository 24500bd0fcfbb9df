"""Whether the trials of a sweep reached far enough: a method that is best at the end of its range may be untuned."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.evaluate.pareto import TrialResult

RISE = 0.001
"""Validation AUC by which the end of a range must beat every trial inside it."""


@dataclass(frozen=True, kw_only=True)
class Rising:
    """A method that was best at an end of the range of what was tuned, and clearly so."""

    method: str
    ratio: float
    tuned: str  # "lr" or "reg"
    value: float  # the end
    gain: float  # of validation AUC over the best trial that is not at this end


def still_rising(trials: Sequence[TrialResult]) -> list[Rising]:
    """Every (method, budget) whose chosen trial lies at an end of a range and is better than the others by `RISE`."""
    groups: dict[tuple[str, float], list[TrialResult]] = {}
    for trial in trials:
        groups.setdefault((trial.cell.method, trial.cell.ratio), []).append(trial)
    found = []
    for (method, ratio), group in groups.items():
        best = next((trial for trial in group if trial.chosen), None)
        for tuned, value in best.values.items() if best is not None else ():
            tried = [trial.values[tuned] for trial in group]
            inside = [trial.validation_auc for trial in group if trial.values[tuned] != value]
            if best is not None and inside and value in (min(tried), max(tried)):
                gain = best.validation_auc - max(inside)
                if gain > RISE:
                    found.append(Rising(method=method, ratio=ratio, tuned=tuned, value=value, gain=gain))
    return found


def rising_note(trials: Sequence[TrialResult]) -> str:
    """What a reader must know of them, in two sentences; nothing where no method is still rising."""
    by_method: dict[str, list[Rising]] = {}
    for each in still_rising(trials):
        by_method.setdefault(each.method, []).append(each)
    if not by_method:
        return ""
    told = [f"{method} ({', '.join(map(_told, found))})" for method, found in by_method.items()]
    return (
        f"Best at an end of the range tried, by more than {RISE} of validation AUC over any other value: "
        f"{', '.join(told)}. A wider range might lift these, so that their place tells little against them."
    )


def _told(each: Rising) -> str:
    return f"{each.ratio:g}× at {each.tuned}{each.value:g}: +{each.gain:.4f}"
