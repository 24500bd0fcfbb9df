"""`narrow`: every feature's table at one smaller width, projected back; the baseline of all that choose widths."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig, fit
from recsys.embeddings.projection import narrow_table


@dataclass(frozen=True, kw_only=True)
class NarrowConfig(MethodConfig):
    """The largest width that fits, the same for all features, with a projection of its own for each.

    A feature of so few ids that its projection would outweigh what it saves keeps its full table. The floor is width 1.
    """

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Find the width.

        Raises:
            ConfigError: a feature has no vocabulary.
        """

        def make(width: int) -> TablePlan:
            return TablePlan.merge([narrow_table(feature, width, self.init) for feature in features])

        return fit(make, 1, features[0].embedding_dim, budget_bytes)
