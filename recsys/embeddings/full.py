"""`full`: one row for every id, the uncompressed baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig, full_table


@dataclass(frozen=True, kw_only=True)
class FullConfig(MethodConfig):
    """A table of its own for every feature."""

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one full table per feature; a budget only checks."""
        return TablePlan.merge([full_table(feature, self.init) for feature in features])
