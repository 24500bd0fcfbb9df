"""`plan`: tables as a file lists them, which an earlier run or a search of dimensions has written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recsys.core.errors import ConfigError, DataError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.mixed import refuse_unused


@dataclass(frozen=True, kw_only=True)
class PlanFileConfig(MethodConfig):
    """The plan of a JSON file, for the same features; their widths are the file's. A budget only checks."""

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unused(self, "the tables are planned already. Change the plan's file, or choose another method.")

    def files(self) -> list[Path]:
        """The plan's file: a run is of what it held, not of where it lay."""
        return [Path(self.path)]

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Read the plan and put it in the order of `features`.

        Raises:
            ConfigError: there is no such file, it plans other features, or it takes more than the budget.
            DataError: the file is no plan.
        """
        try:
            plan = TablePlan.from_json(Path(self.path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"path={self.path}: cannot be read ({error}). Give the plan.json of a run.") from error
        except DataError as error:
            raise DataError(f"path={self.path}: {error}") from error
        self._check_features(plan, features)
        plan = plan.reordered([feature.name for feature in features])
        if self.budget_mib is not None or self.compression_ratio is not None:
            self._check(plan, self.budget_bytes(features))
        return plan

    def _check_features(self, plan: TablePlan, features: Sequence[FeatureSpec]) -> None:
        planned = {entry.feature.name: entry.feature for entry in plan.features}
        asked = {feature.name: feature for feature in features}
        if planned.keys() != asked.keys():
            raise ConfigError(
                f"path={self.path}: the plan lacks feature(s) {sorted(asked.keys() - planned.keys())} and has "
                f"{sorted(planned.keys() - asked.keys())}, which are not asked for. Use the data set and the model "
                "that it was made for."
            )
        for name, feature in asked.items():
            # Widths are what a plan decides, and counts of look-ups only guide it; the rest tells which ids come in.
            found = replace(planned[name], embedding_dim=feature.embedding_dim, octave_counts=feature.octave_counts)
            if found != feature:
                raise ConfigError(
                    f"path={self.path}: the plan is for {found}, the data set and model ask for {feature}. Use those "
                    "that it was made for."
                )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Not used: the plan is made."""
        raise ConfigError("a plan from a file cannot be planned as a group.")
