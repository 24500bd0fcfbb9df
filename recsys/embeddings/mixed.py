"""`mixed`: any method for any feature, side by side in one plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.core.callback import Callback
from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.method import MethodConfig, check_names, names_feature


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """These features (or columns) are planned together by this method, under its own budget."""

    features: list[str]
    method: MethodConfig


@dataclass(frozen=True, kw_only=True)
class MixedConfig(MethodConfig):
    """Features go to the first assignment that names them, else to `default`. A budget here bounds the whole plan."""

    default: MethodConfig
    assignments: list[Assignment] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, unused in {"init": self.init != Init(), "full_below": self.full_below}.items():
            if unused:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is not used here: a mixed method plans no table itself. Set it on "
                    "`default` and on the assignments' methods."
                )

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Plan each group by its method and merge; see `MethodConfig.plan`."""
        for number, assignment in enumerate(self.assignments):
            check_names(f"assignments[{number}].features", assignment.features, features)
        plans = [method.plan(group) for method, group in self._groups(features)]
        plan = TablePlan.merge(plans).reordered([feature.name for feature in features])
        if self.budget_mib is not None or self.compression_ratio is not None:
            self._check(plan, self.budget_bytes(features))
        return plan

    def _groups(self, features: Sequence[FeatureSpec]) -> list[tuple[MethodConfig, list[FeatureSpec]]]:
        """Methods that have features, with those features."""
        left, groups = list(features), []
        for assignment in self.assignments:
            taken = [feature for feature in left if names_feature(feature, assignment.features)]
            left = [feature for feature in left if not names_feature(feature, assignment.features)]
            groups.append((assignment.method, taken))
        return [(method, group) for method, group in [*groups, (self.default, left)] if group]

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Each group's, by its method."""
        names = [entry.feature.name for entry in plan.features]
        groups = self._groups([entry.feature for entry in plan.features])
        plans = [method.serving_plan(plan.of([feature.name for feature in group])) for method, group in groups]
        return TablePlan.merge(plans).reordered(names)

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Each group's, by its method."""
        names = [entry.feature.name for entry in parts.plan.features]
        if self.serving_plan(parts.plan) == parts.plan:
            return parts
        groups = self._groups([entry.feature for entry in parts.plan.features])
        frozen = [method.freeze(parts.of([feature.name for feature in group])) for method, group in groups]
        return EmbeddingParts.merge(frozen).reordered(names)

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """Those of all methods, each for the features that it has planned."""
        groups = self._groups([entry.feature for entry in plan.features])
        plans = [(method, plan.of([feature.name for feature in group])) for method, group in groups]
        return [callback for method, own in plans for callback in method.callbacks(own)]

    def files(self) -> list[Path]:
        """Those of all methods."""
        return [path for method in self._methods() for path in method.files()]

    def _methods(self) -> list[MethodConfig]:
        return [self.default, *(assignment.method for assignment in self.assignments)]

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Not used: each assignment plans its own group."""
        raise ConfigError("a mixed method cannot be planned as one group.")
