"""`cafe`: ids that matter now own rows, the others share hashed ones (Zhang et al., SIGMOD 2024, arXiv:2312.03256).

What matters is the norm of the gradient that an id's embedding gets. A sketch gathers it while training, and from time
to time the most important ids are given private rows, which begin as copies of the hashed row that the id read so far;
ids that lose theirs go back to the hashed row. Serving needs the map of ids that own rows, 4 to 12 bytes each.

Differences from the authors' program:
* Gradients are taken where the rows come out of the look-up, not from buffers of sparse gradients.
* Each feature has a sketch and a number of private rows of its own (the plan fixes shapes), given by how frequent its
  ids are; and instead of a threshold to be tuned, its most important ids own them.
* Where a vocabulary ranks ids by frequency, training starts with private rows for the most frequent ids, and with
  scores as if `prior_epochs` epochs had passed. Id 0, out-of-vocabulary, keeps its private row.
* All features share the hashed rows, as in `adapt_emb`, and for its reasons.

Measured on the Criteo sample, whose rows are shuffled (DCNv2, one seed, validation AUC at 10x and 100x): .7590 and
.7543; rows that never change hands .7589 and .7546; `prior_epochs=0` .7529 and .7545; `adapt_emb` .7589 and .7532;
`hash` .7476 and .7266. Where what is popular does not change, the counts say all that the gradients tell later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from recsys.core.callback import Callback
from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.frequency import heads
from recsys.embeddings.hot_rows import HotRemap, OwnOrShared, Promotion
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, expected_ids, fit, full_bytes, full_table
from recsys.ops.hashing import salt_for

HASH_SHARES = ((5, 0.5), (50, 0.3), (200, 0.2), (2000, 0.1))
"""(compression from which on, share of the bytes that is hashed rows), from the paper's settings for Criteo."""


@dataclass(frozen=True, kw_only=True)
class CafeConfig(MethodConfig):
    """Features get private rows by how frequent their ids are; one that gets a row for every id keeps a full table.

    A feature without a vocabulary is planned as if its distinct training keys were one.
    """

    hash_share: float | None = None  # of the bytes, for rows that ids share; None: by the compression, as published
    refresh_every: int = 10  # steps between two promotions
    half_life: int = 2000  # steps after which an importance counts half
    prior_epochs: float = 1.0  # that training counts stand for at the start; 0: no private rows at first, as published
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hash_share is not None and not 0 <= self.hash_share <= 1:
            raise ConfigError(f"hash_share={self.hash_share}: must be between 0 and 1, or null for the published ones.")
        for name in ("refresh_every", "half_life"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 1 or more steps.")
        if not 0 <= self.prior_epochs <= 1000:
            raise ConfigError(f"prior_epochs={self.prior_epochs}: must be between 0 and 1000.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan hashed rows by their share, then as many private rows as fit, and what is left as hashed rows."""
        row_bytes = features[0].embedding_dim * FLOAT_BYTES
        share = self.hash_share
        if share is None:
            share = published_share(full_bytes(features) / max(budget_bytes, 1))
        sizes = [replace(f, num_embeddings=expected_ids(f)) for f in features]
        num_ids = sum(expected_ids(feature) for feature in features)
        shared = max(1, int(budget_bytes * share) // row_bytes)

        def make(num_private: int) -> TablePlan:
            return self._plan(features, heads(sizes, num_private), shared)

        whole = make(num_ids)  # without maps and hashed rows, it may be smaller than plans of fewer private rows
        if whole.num_bytes <= budget_bytes:
            return whole
        plan = fit(make, 0, num_ids, budget_bytes)
        left = max(0, budget_bytes - plan.num_bytes) // row_bytes
        private = [_num_private(entry) for entry in plan.reordered([f.name for f in features]).features]
        return self._plan(features, private, shared + left)

    def _plan(self, features: Sequence[FeatureSpec], private: Sequence[int], num_shared: int) -> TablePlan:
        pairs = list(zip(features, private, strict=True))
        plans = [full_table(feature, self.init) for feature, own in pairs if own == feature.num_embeddings]
        rest = [(feature, own) for feature, own in pairs if own != feature.num_embeddings]
        if rest:
            plans.append(self._plan_together(rest, num_shared))
        return TablePlan.merge(plans)

    def _plan_together(self, pairs: Sequence[tuple[FeatureSpec, int]], num_shared: int) -> TablePlan:
        """One table: the rows that all share, then each feature's private rows."""
        *firsts, num_rows = accumulate((own for _, own in pairs), initial=num_shared)
        first = pairs[0][0]
        table = TableSpec(
            name=f"table_cafe_{first.name}", num_embeddings=num_rows, embedding_dim=first.embedding_dim, init=self.init
        )
        entries = []
        for (feature, own), start in zip(pairs, firsts, strict=True):
            remap = Component.of(
                HotRemap,
                num_shared=num_shared,
                first_private=start,
                num_private=own,
                num_ids=feature.num_embeddings or 0,
                salt=salt_for(feature.name, 0, self.seed),
            )
            combiner = Component.of(OwnOrShared)
            entries.append(FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=combiner))
        return TablePlan(tables=(table,), features=tuple(entries))

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """What scores and promotes."""
        timing = {"refresh_every": self.refresh_every, "half_life": self.half_life}
        return [Promotion(plan, **timing, prior_epochs=self.prior_epochs)]


def published_share(compression: float) -> float:
    """Share of hashed rows, by the settings that the paper found best."""
    return next((share for least, share in reversed(HASH_SHARES) if compression >= least), 0.7)


def _num_private(entry: FeaturePlan) -> int:
    """Private rows of a planned feature; all, where it is full."""
    return int(entry.remap.params.get("num_private", entry.feature.num_embeddings or 0))
