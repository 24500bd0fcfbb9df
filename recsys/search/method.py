"""What all searches share: the budget and its floor, and how each is asked for choices."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from recsys.core.batch import Batch, BatchSource
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.method import full_bytes
from recsys.search.choice import Choice, Space
from recsys.search.fit import check_budget
from recsys.search.proportions import Way

Score = Callable[[Choice], Iterator[float]]
"""Learning curve of a choice: trains its plan a little further for each value asked for, higher is better."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A choice within a budget."""

    budget_bytes: int
    choice: Choice
    score: float | None  # on the part held out for the search; None where the search needs none


class Supernet(Protocol):
    """A trained supernet."""

    @property
    def session(self) -> TrainingSession:
        """Of this rank."""

    def score(self) -> float:
        """Of the supernet as its masks are now, on the part held out for the search; a collective call."""


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What a supernet's callbacks may use beside its training rows."""

    held: BatchSource  # shuffled batches of the part held out for the search
    num_steps: int  # of the whole training
    seed: int  # of draws that are not torch's own
    loss_sum: Callable[[nn.Module, Batch], Tensor]  # over a batch's rows, a scalar with gradient
    looks_up_batches: bool = True  # whether a step looks up the ids of its batch; if not, every id once


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Base of all searches.

    The budget (`budget_mib`, or `compression_ratio` = uncompressed bytes / bytes) is what serving all embeddings may
    take. `frontier` names further compression ratios. The part `holdout` of the training rows, or of each user's
    training pairs, is not trained on: it guides the search and scores its choices. Validation and test, which later
    report, are not looked at.
    """

    budget_mib: float | None = None
    compression_ratio: float | None = None
    frontier: list[float] = field(default_factory=list)
    blocks: int = 4
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.budget_mib is not None and self.compression_ratio is not None:
            raise ConfigError(
                f"search.budget_mib={self.budget_mib} and search.compression_ratio={self.compression_ratio} are both "
                "set, and each fixes the budget. Set one of them."
            )
        values = {"budget_mib": self.budget_mib, "compression_ratio": self.compression_ratio}
        for name, value in [*values.items(), *(("frontier", ratio) for ratio in self.frontier)]:
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"search.{name}={value}: must be above 0 and finite.")
        if self.blocks < 1:
            raise ConfigError(f"search.blocks={self.blocks}: a feature needs at least one. Set 1 for one width each.")
        if not 0 < self.holdout < 1:
            raise ConfigError(f"search.holdout={self.holdout}: a share of the training rows, above 0 and below 1.")

    def budgets(self, features: Sequence[FeatureSpec]) -> list[int]:
        """Bytes of the budget, then of those of the frontier, largest first, each once.

        Raises:
            ConfigError: no budget is set.
        """
        if self.budget_mib is None and self.compression_ratio is None:
            raise ConfigError("search.budget_mib is missing: a search needs a budget. Set it, or compression_ratio.")
        whole = full_bytes(features)
        own = (
            int(self.budget_mib * 2**20) if self.budget_mib is not None else int(whole / (self.compression_ratio or 1))
        )
        others = sorted({int(whole / ratio) for ratio in self.frontier} - {own}, reverse=True)
        return [own, *others]

    def space(self, features: Sequence[FeatureSpec], init: Init) -> Space:
        """What may be chosen.

        Raises:
            ConfigError: a feature has no vocabulary, or a budget is below the floor, or above the bytes of full tables.
        """
        if not features:
            raise ConfigError("there is no categorical feature whose embeddings could be searched. Name at least one.")
        space, whole = Space.of(features, num_blocks=self.blocks, init=init), full_bytes(features)
        for budget in self.budgets(features):
            check_budget(space, budget)
            if budget > whole:
                raise ConfigError(
                    f"search.budget_mib={budget / 2**20:.4g} is {budget:,} bytes, and full tables take {whole:,}: "
                    "there is nothing to search. Lower it (or raise the ratio above 1), or train with "
                    "embedding=full."
                )
        return space


@dataclass(frozen=True, kw_only=True)
class UntrainedSearch(SearchConfig, ABC):
    """A search that knows its choice from the counts of ids."""

    @abstractmethod
    def find(self, space: Space, budgets: Sequence[int]) -> list[Found]:
        """A choice within each budget, in their order."""


@dataclass(frozen=True, kw_only=True)
class TrialSearch(SearchConfig, ABC):
    """A search that scores whole plans, each trained a little from scratch: knows nothing but `score(choice)`."""

    trials: int = 16
    rungs: int = 3  # values of a trial's learning curve, the last of which is its score
    steps_per_rung: int = 100
    ways: list[Way] = field(default_factory=lambda: list(Way))  # to make a feature fit its share of the budget

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ways or len(set(self.ways)) < len(self.ways):
            raise ConfigError(f"search.ways={[way.value for way in self.ways]}: one or more, each once.")
        for name in ("trials", "rungs", "steps_per_rung"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.{name}={getattr(self, name)}: must be 1 or more.")

    @abstractmethod
    def find(self, space: Space, score: Score, budget_bytes: int, *, seed: int, storage: Path) -> Found:
        """Search within one budget.

        Args:
            space: to choose from.
            score: of a choice.
            budget_bytes: of every choice.
            seed: equal seeds give equal choices.
            storage: file of this search alone. What was scored is kept there, so that a search that was killed goes on.
        """


@dataclass(frozen=True, kw_only=True)
class SupernetSearch(SearchConfig, ABC):
    """A search in one trained supernet: full tables behind masks, which all budgets share.

    It trains for all its epochs and is searched as the last one leaves it: what it learns of widths needs its time, and
    the epoch of best validation, which early stopping would take, may lie before that.
    """

    slices: ClassVar[bool] = False  # whether the supernet's weights are those of a choice's plan, without retraining
    lottery: ClassVar[bool] = False  # whether a plan is retrained from the initial rows that the supernet had
    epochs: int | None = None  # of the supernet; None: train.epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"search.epochs={self.epochs}: must be 1 or more, or null for train.epochs.")

    @abstractmethod
    def supernet(self, space: Space) -> TablePlan:
        """Full tables, masked."""

    @abstractmethod
    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What acts while the supernet trains."""

    @abstractmethod
    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """A choice within each budget, in their order; on all ranks alike.

        Args:
            space: that the supernet was made of.
            supernet: trained.
            budgets: bytes.
            seed: equal seeds give equal choices.
            storage: as of `TrialSearch.find`.
        """
