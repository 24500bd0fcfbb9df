"""`plan`: tables as a file lists them, which an earlier run or a search of dimensions has written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.core.callback import Callback
from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import build_config
from recsys.core.modules import Combiner, Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.check import check_feature
from recsys.embeddings.method import MethodConfig

PLANNED = "the tables are planned already. Change the plan's file, or choose another method."
METHOD_NAME = "method.json"
"""Beside a plan: the method that made it, whose callbacks and freezing belong to its tables."""


def write_plan(folder: Path, plan: TablePlan, method: Mapping[str, Any]) -> None:
    """Write a plan as `embedding=plan` reads it.

    Args:
        folder: of the two files.
        plan: goes into `plan.json`.
        method: plain values of the configuration that made it, for `method.json`.
    """
    (folder / "plan.json").write_text(plan.to_json())
    (folder / METHOD_NAME).write_text(json.dumps(method, indent=1))


@dataclass(frozen=True, kw_only=True)
class PlanFileConfig(MethodConfig):
    """The plan of a JSON file, for the same features; their widths are the file's. A budget only checks.

    Where `method.json` lies beside it, its method acts while training and freezes, as in the run that wrote both.
    A plan alone is of tables that are served as they are trained.
    """

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full_below:
            raise ConfigError(f"full_below={self.full_below} is not used here: {PLANNED}")

    @property
    def label(self) -> str:
        """`plan`: a file's."""
        return "plan"

    def files(self) -> list[Path]:
        """The plan's file and the one beside it: a run is of what they held, not of where they lay."""
        return [path for path in (Path(self.path), self._method_path) if path.is_file()] or [Path(self.path)]

    @property
    def _method_path(self) -> Path:
        return Path(self.path).with_name(METHOD_NAME)

    @cached_property
    def _method(self) -> MethodConfig | None:
        """The method that made the plan, if it is known."""
        if not self._method_path.is_file():
            return None
        try:
            values = json.loads(self._method_path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self._method_path}: not valid JSON ({error}). Plan or train again.") from error
        return build_config(MethodConfig, values, key=str(self._method_path))  # type: ignore[type-abstract]

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """Those of the method that made the plan."""
        return self._method.callbacks(plan) if self._method is not None else []

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """That of the method that made the plan."""
        return self._method.serving_plan(plan) if self._method is not None else plan

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """As the method that made the plan."""
        return self._method.freeze(parts) if self._method is not None else parts

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Read the plan and put it in the order of `features`.

        Raises:
            ConfigError: there is no such file, it plans other features, or it takes more than the budget.
            DataError: the file is no plan, or parts of it do not work or do not fit each other.
        """
        try:
            plan = TablePlan.from_json(Path(self.path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"path={self.path}: cannot be read ({error}). Give the plan.json of a run.") from error
        except DataError as error:
            raise DataError(f"path={self.path}: {error}") from error
        self._check_features(plan, features)
        plan = plan.reordered([feature.name for feature in features])
        self._check_parts(plan)
        if self.init != Init() and all(table.init != self.init for table in plan.tables):
            raise ConfigError(f"init={self.init} is not used here, and no table of {self.path} has it: {PLANNED}")
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

    def _check_parts(self, plan: TablePlan) -> None:
        tables = {table.name: table for table in plan.tables}
        for entry in plan.features:
            try:
                remap, combiner = entry.remap.build(), entry.combiner.build()
                assert isinstance(remap, Remap) and isinstance(combiner, Combiner), "not a remap and a combiner"
                check_feature(entry, remap, combiner, tables)
            except ConfigError as error:
                raise DataError(f"path={self.path}, feature {entry.feature.name!r}: {error}") from error
            except Exception as error:
                raise DataError(  # a file may hold any value, and each part fails at it in a way of its own
                    f"path={self.path}: feature {entry.feature.name!r} cannot be embedded by {entry.remap} and "
                    f"{entry.combiner} ({type(error).__name__}: {error}). Write the plan again: train, plan or search."
                ) from error

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Not used: the plan is made."""
        raise ConfigError("a plan from a file cannot be planned as a group.")
