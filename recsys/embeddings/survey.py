"""What a method makes of given features, before any training: floor, ceiling, bytes, collisions, by feature and in all.

Nothing here knows a method: budgets are tried through `MethodConfig.plan`, whose refusal is the answer no.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recsys.core.errors import ConfigError, RecsysError
from recsys.core.plan import FeaturePlan, TablePlan, component_bytes
from recsys.core.specs import FeatureSpec
from recsys.embeddings.collisions import Collisions, collisions, mean_share
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, expected_ids, full_bytes

ENOUGH = (4, 16)
"""Multiples of the uncompressed bytes: a method whose plans are equally large at both has reached its ceiling."""

NEEDED = re.compile(r"needs ([\d,]+) bytes")
"""How a refusal states the bytes that would do."""


@dataclass(frozen=True, kw_only=True)
class FeatureSurvey:
    """One feature under one plan. Bytes of a table that several features read are divided by their ids."""

    feature: str
    num_ids: int | None  # None: hashed
    num_rows: int  # of the tables that it reads
    num_sharing: int  # features that read its tables, itself included
    widths: tuple[int, ...]  # of the row of each look-up
    row_types: tuple[str, ...]  # as served
    serving_bytes: int  # tables as stored, remap, combiner
    training_bytes: int  # tables padded, float32; remap, combiner
    collisions: Collisions


@dataclass(frozen=True, kw_only=True)
class MethodSurvey:
    """One method under one budget; what it cannot tell is None."""

    method: str
    refusal: str  # why there is no plan; empty when there is one
    floor_bytes: int | None = None  # smallest budget that is accepted
    ceiling_bytes: int | None = None  # bytes of its largest plan; None: it grows with the budget
    serving_bytes: int | None = None
    training_bytes: int | None = None
    num_tables: int | None = None
    num_lookups: int | None = None  # of a row with one id of every feature
    colliding: float | None = None  # share of all look-ups that another id of their feature shares all rows with
    exact: bool = False  # of `colliding`


def survey_features(
    plan: TablePlan, serving: TablePlan, *, max_ids: int, oov_counts: Mapping[str, int]
) -> list[FeatureSurvey]:
    """Every feature of a plan; see `collisions` for the last two arguments.

    Args:
        plan: as trained.
        serving: what is served of it.
    """
    found = collisions(plan, max_ids=max_ids, oov_counts=oov_counts)
    served = {entry.feature.name: entry for entry in serving.features}
    at_serving, in_training = _shares(serving, padded=False), _shares(plan, padded=True)
    surveys = []
    for entry in plan.features:
        name = entry.feature.name
        users = [other for other in plan.features if set(other.tables) & set(entry.tables)]
        surveys.append(
            FeatureSurvey(
                feature=name,
                num_ids=entry.feature.num_embeddings,
                num_rows=sum(plan.table(table).num_embeddings for table in set(entry.tables)),
                num_sharing=max(len(users), 1),
                widths=tuple(plan.table(table).embedding_dim for table in entry.tables),
                row_types=tuple(sorted({serving.table(table).row_type.value for table in served[name].tables})),
                serving_bytes=at_serving[name],
                training_bytes=in_training[name],
                collisions=found[name],
            )
        )
    return surveys


def training_bytes(plan: TablePlan) -> int:
    """Bytes of the weights while training: float32 rows padded to what FBGEMM takes, remaps and combiners."""
    tables = sum(table.num_embeddings * table.storage_dim * FLOAT_BYTES for table in plan.tables)
    return tables + plan.remap_bytes + plan.combiner_bytes


def survey_method(
    name: str, config: MethodConfig, features: Sequence[FeatureSpec], *, max_ids: int, oov_counts: Mapping[str, int]
) -> MethodSurvey:
    """One method at the budget that `config` sets: whether it fits, and between which bounds it could.

    What it raises of its own is the reason why it has no plan: the other methods go on.

    Args:
        name: what to call it.
        config: with the budget.
        features: to plan.
        max_ids: see `collisions`.
        oov_counts: see `collisions`.
    """
    bounds = Bounds(floor_bytes=None, ceiling_bytes=None)
    try:
        bounds = Bounds.of(config, features)
        plan = config.plan(features)
        serving = config.serving_plan(plan)
        found = collisions(plan, max_ids=max_ids, oov_counts=oov_counts)
    except RecsysError as error:
        return MethodSurvey(
            method=name, refusal=str(error), floor_bytes=bounds.floor_bytes, ceiling_bytes=bounds.ceiling_bytes
        )
    return MethodSurvey(
        method=name,
        refusal="",
        floor_bytes=bounds.floor_bytes,
        ceiling_bytes=bounds.ceiling_bytes,
        serving_bytes=serving.num_bytes,
        training_bytes=training_bytes(plan),
        num_tables=len(plan.tables),
        num_lookups=sum(len(entry.tables) for entry in plan.features),
        colliding=mean_share(found, [entry.feature for entry in plan.features]),
        exact=all(each.exact for each in found.values()),
    )


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Between which budgets a method has a choice."""

    floor_bytes: int | None  # smallest budget that is accepted; None: none is
    ceiling_bytes: int | None  # bytes beyond which its plan no longer grows; None: it always grows

    @staticmethod
    def of(config: MethodConfig, features: Sequence[FeatureSpec]) -> "Bounds":
        """Found by trying: refusals below the floor, equal plans above the ceiling."""
        high, higher = (full_bytes(features) * multiple for multiple in ENOUGH)
        largest = _tried(config, features, high)
        if isinstance(largest, ConfigError):
            return Bounds(floor_bytes=None, ceiling_bytes=None)
        ceiling = largest if _tried(config, features, higher) == largest else None
        return Bounds(floor_bytes=_floor(config, features, high), ceiling_bytes=ceiling)


def _floor(config: MethodConfig, features: Sequence[FeatureSpec], accepted: int) -> int:
    """Smallest budget that is accepted, by bisection below one that is."""
    low, high = 0, accepted
    refusal = _tried(config, features, 1)
    if not isinstance(refusal, ConfigError):
        return 1
    stated = NEEDED.search(str(refusal))  # a guess that spares most steps where it is right
    if stated is not None and 1 < (guess := int(stated[1].replace(",", ""))) < high:
        for budget in (guess, guess - 1):
            if isinstance(_tried(config, features, budget), ConfigError):
                low = max(low, budget)
            else:
                high = min(high, budget)
    while high - low > 1:
        middle = (low + high) // 2
        if isinstance(_tried(config, features, middle), ConfigError):
            low = middle
        else:
            high = middle
    return high


def _tried(config: MethodConfig, features: Sequence[FeatureSpec], budget_bytes: int) -> int | ConfigError:
    """Bytes of the plan at a budget, or the refusal."""
    budgeted = replace(config, budget_mib=budget_bytes / 2**20, compression_ratio=None)  # exact: 2**20 is a power of 2
    try:
        return budgeted.serving_plan(budgeted.plan(features)).num_bytes
    except ConfigError as error:
        return error


def _shares(plan: TablePlan, *, padded: bool) -> dict[str, int]:
    """Bytes of each feature: its own, and its part of the tables that it shares, rounded."""
    totals = {entry.feature.name: float(_own_bytes(entry)) for entry in plan.features}
    for table in plan.tables:
        users = [entry for entry in plan.features if table.name in entry.tables]
        ids = [expected_ids(entry.feature) * entry.tables.count(table.name) for entry in users]
        num_bytes = table.num_embeddings * table.storage_dim * FLOAT_BYTES if padded else table.num_bytes
        for entry, count in zip(users, ids, strict=True):
            totals[entry.feature.name] += num_bytes * count / sum(ids)
    return {name: round(total) for name, total in totals.items()}


def _own_bytes(entry: FeaturePlan) -> int:
    return component_bytes(entry.remap) + component_bytes(entry.combiner)
