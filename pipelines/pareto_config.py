"""What a sweep over embedding methods and budgets tries."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from recsys.core.errors import ConfigError

SLICED = "_sliced"
"""Ends the name of a search whose plans are cut out of its supernet, not retrained."""

LEARNING_RATE, REGULARIZER = "train.optimizer.table_learning_rate", "train.optimizer.table_regularizer"
SHORT = {LEARNING_RATE: "lr", REGULARIZER: "reg"}


@dataclass(frozen=True)
class Trial:
    """One setting of what is tuned for every method alike."""

    label: str  # part of run names; empty where nothing is tuned
    overrides: tuple[str, ...]
    values: tuple[tuple[str, float], ...]  # by the short names of the label


@dataclass(frozen=True, kw_only=True)
class ParetoConfig:
    """Every method at every budget on every seed, after equally many trials each.

    At the first seed each (method, budget) is trained once for each pair of `learning_rates` and `regularizers`; the
    pair with the best validation AUC is used for the other seeds.
    """

    methods: list[str]  # options of `embedding`, or names that `overrides` explains
    ratios: list[float]  # uncompressed bytes / budget
    seeds: list[int]
    learning_rates: list[float] = field(default_factory=list)  # of tables; empty: the experiment's own
    regularizers: list[float] = field(default_factory=list)  # of tables; empty: the experiment's own
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method: {key: value} of its command line
    searches: list[str] = field(default_factory=list)  # options of `search`, whose plans are retrained: `search_<name>`

    def __post_init__(self) -> None:
        for name in ("methods", "ratios", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"{name}=[]: needs at least one entry.")
        for name in ("methods", "ratios", "seeds", "learning_rates", "regularizers", "searches"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigError(f"{name}={values}: holds an entry twice. Name each once.")
        for name, lowest in (("ratios", 1), ("learning_rates", 0), ("regularizers", 0)):
            if not all(lowest <= value < float("inf") for value in getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)}: must be {lowest} or more, and finite.")
        bad = [name for name in self.all_methods if not re.fullmatch(r"\w[\w.-]*", name)]
        if bad:
            raise ConfigError(f"methods: {bad} cannot name folders. Use letters, digits, '_', '-' and '.'.")
        # What has an `embedding` or a `search` of its own may be left out of a smaller sweep; another one is a slip.
        own = [name for name, given in self.overrides.items() if "embedding" in given or _of_search(given)]
        unknown = sorted(self.overrides.keys() - {*self.all_methods, *own})
        if unknown:
            raise ConfigError(f"overrides names {unknown}, which methods does not hold. It has {self.all_methods}.")

    @property
    def searched_methods(self) -> list[str]:
        """What the sweep calls its searches: an option of `embedding` may have the same name."""
        return [f"search_{name}" for name in self.searches]

    @property
    def all_methods(self) -> list[str]:
        """Methods, then searches, each with its slices, if it has any."""
        return [*self.methods, *(name + suffix for name in self.searched_methods for suffix in ("", SLICED))]

    def method_overrides(self, method: str) -> tuple[str, ...]:
        """What a method has on its command line: its option of `embedding`, and what `overrides` says of it."""
        embedding = () if "embedding" in self.overrides.get(method, {}) else (f"embedding={method}",)
        return (*embedding, *self.given(method))

    def given(self, method: str) -> tuple[str, ...]:
        """What `overrides` says of a method, or of a search."""
        return tuple(f"{key}={_shown(value)}" for key, value in self.overrides.get(method, {}).items())

    @property
    def trials(self) -> list[Trial]:
        """What is tried at the first seed; equally many for every method and budget."""
        tuned = [(key, values) for key, values in self._tuned().items() if values]
        found = []
        for chosen in product(*(values for _, values in tuned)):
            pairs = list(zip((key for key, _ in tuned), chosen, strict=True))
            values = tuple((SHORT[key], value) for key, value in pairs)
            label = "_".join(f"{name}{value:g}" for name, value in values)
            found.append(Trial(label, tuple(f"{key}={value!r}" for key, value in pairs), values))
        return found

    def _tuned(self) -> dict[str, list[float]]:
        return {LEARNING_RATE: self.learning_rates, REGULARIZER: self.regularizers}


def _of_search(given: Mapping[str, Any]) -> bool:
    return any(key.startswith("search.") for key in given)


def _shown(value: Any) -> str:
    """A plain value as Hydra reads it on a command line."""
    if isinstance(value, list):
        return f"[{','.join(_shown(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_shown(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
