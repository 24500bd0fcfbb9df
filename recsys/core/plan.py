"""`TablePlan`: logical features -> remap, tables, combiner. What search writes, train builds, export freezes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from recsys.core.component import Component
from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import from_json, to_json
from recsys.core.specs import FeatureSpec, TableSpec


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """One logical feature: `remap(ids)` gives a row per look-up, `tables[t]` holds look-up t, `combiner` joins them."""

    feature: FeatureSpec
    tables: tuple[str, ...]
    remap: Component
    combiner: Component


def component_bytes(component: Component) -> int:
    """Bytes of a component's parameters and buffers, counted without allocating them."""
    with torch.device("meta"):
        return sum(tensor.numel() * tensor.element_size() for tensor in component.build().state_dict().values())


@dataclass(frozen=True)
class TablePlan:
    """An immutable, JSON-serialisable plan of all embedding tables of a model.

    Raises:
        ConfigError: two tables or features share a name, a feature uses a table that is not there, or nobody uses one.
    """

    tables: tuple[TableSpec, ...]
    features: tuple[FeaturePlan, ...]

    def __post_init__(self) -> None:
        tables = [table.name for table in self.tables]
        features = [read.name for entry in self.features for read in entry.feature.reads]
        for kind, names in (("table", tables), ("feature", features)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ConfigError(f"the plan holds {kind}(s) {repeated} more than once. Each needs a name of its own.")
        used = {name for entry in self.features for name in entry.tables}
        if used != set(tables):
            raise ConfigError(f"the plan's tables are {sorted(tables)}, but its features use {sorted(used)}.")

    @staticmethod
    def merge(plans: Sequence["TablePlan"]) -> "TablePlan":
        """Join plans of disjoint features, in order."""
        return TablePlan(
            tables=tuple(table for plan in plans for table in plan.tables),
            features=tuple(entry for plan in plans for entry in plan.features),
        )

    def reordered(self, names: Sequence[str]) -> "TablePlan":
        """The same plan with its features in the order of `names`."""
        by_name = {entry.feature.name: entry for entry in self.features}
        return TablePlan(tables=self.tables, features=tuple(by_name[name] for name in names))

    def of(self, names: Sequence[str]) -> "TablePlan":
        """The plan of some features alone, in this plan's order."""
        entries = tuple(entry for entry in self.features if entry.feature.name in names)
        used = {name for entry in entries for name in entry.tables}
        return TablePlan(tables=tuple(table for table in self.tables if table.name in used), features=entries)

    @property
    def outputs(self) -> list[FeatureSpec]:
        """All embeddings that come out, in order: one for each column that a feature reads."""
        return [output for entry in self.features for output in entry.feature.outputs]

    def table(self, name: str) -> TableSpec:
        """The table of that name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, TableSpec]:
        return {table.name: table for table in self.tables}

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables as served."""
        return sum(table.num_bytes for table in self.tables)

    @property
    def remap_bytes(self) -> int:
        """Bytes of what remaps own: codes, pointers, hot maps."""
        return sum(component_bytes(entry.remap) for entry in self.features)

    @property
    def combiner_bytes(self) -> int:
        """Bytes of what combiners own: projections, hash networks."""
        return sum(component_bytes(entry.combiner) for entry in self.features)

    @property
    def num_bytes(self) -> int:
        """Bytes needed to serve every embedding of this plan."""
        return self.table_bytes + self.remap_bytes + self.combiner_bytes

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal plan back."""
        return json.dumps(to_json(self), indent=1)

    @staticmethod
    def from_json(text: str) -> "TablePlan":
        """Read what `to_json` wrote.

        Raises:
            DataError: not JSON, or a field is missing, unknown or of the wrong type.
        """
        try:
            return from_json(TablePlan, json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(
                f"this is not the JSON text of a TablePlan: {error}. Write it again with `to_json`."
            ) from error

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything in the plan changes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def __str__(self) -> str:
        header = f"{'table':<28}{'rows':>12}{'width':>7}{'type':>9}{'bytes':>15}  features"
        lines = [header, "-" * len(header)]
        for table in self.tables:
            users = [entry.feature.name for entry in self.features if table.name in entry.tables]
            shown = ", ".join(users[:4]) + (f", … ({len(users)})" if len(users) > 4 else "")
            lines.append(
                f"{table.name:<28}{table.num_embeddings:>12,}{table.embedding_dim:>7}{table.row_type.value:>9}"
                f"{table.num_bytes:>15,}  {shown}"
            )
        lines.append(
            f"total {self.num_bytes:,} bytes ({self.num_bytes / 2**20:.2f} MiB): tables {self.table_bytes:,}, "
            f"remaps {self.remap_bytes:,}, combiners {self.combiner_bytes:,}"
        )
        return "\n".join(lines)
