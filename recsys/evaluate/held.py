"""Rows that are held in memory all at once, for what needs them together: users, replicates."""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.names import WEIGHT
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.groups import group_keys, group_ranks
from recsys.evaluate.scored import numeric_column
from recsys.evaluate.source import Predictions
from recsys.metrics import Clusters, GroupedAuc, GroupedCounts, GroupWeight, MetricValue, average_of_groups, gauc_of
from recsys.metrics.checks import one_class_reason


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldRows:
    """Labels, logits, probabilities (N,) and the group of each row: of `group_key`, else the row itself."""

    labels: Tensor
    logits: Tensor
    probabilities: Tensor
    clusters: Clusters
    """Rows without a key are a group each: pooled, they would be one huge false user."""
    keyed: Tensor
    """bool (N,): the row has a key; all false without a `group_key`."""
    weights: Tensor | None = None
    """(N,); None: all rows count alike."""

    @classmethod
    def of(cls, source: Predictions, group_key: str) -> "HeldRows":
        """Read them; columns have been checked before."""
        weighted = WEIGHT in source.columns
        columns = [
            "label",
            "logit",
            "probability",
            *([group_key] if group_key else []),
            *([WEIGHT] if weighted else []),
        ]
        # A group key may be one of the others; a frame names each column once.
        frame = pl.concat(list(source.chunks(list(dict.fromkeys(columns)))))
        labels, logits, probabilities = (torch.from_numpy(frame[name].to_numpy(writable=True)) for name in columns[:3])
        clusters, keyed = clusters_of(frame, group_key)
        return cls(
            labels=labels,
            logits=logits,
            probabilities=probabilities,
            clusters=clusters,
            keyed=keyed,
            weights=numeric_column(frame, WEIGHT) if weighted else None,
        )

    def gauc(self, weighting: GroupWeight) -> GroupedAuc:
        """GAUC of the rows with a key."""
        keyed, weights = self.keyed, None if self.weights is None else self.weights[self.keyed]
        counts = GroupedCounts.from_rows(self.labels[keyed], self.logits[keyed], self.clusters.index[keyed], weights)
        return gauc_of(counts, weighting=weighting)


def clusters_of(frame: pl.DataFrame, group_key: str) -> tuple[Clusters, Tensor]:
    """(Group of each row, bool (N,) whether it has a key); rows without a key, or all without a column, are groups of
    their own.
    """
    index = group_ranks(frame[group_key]) - 1 if group_key else torch.full((frame.height,), -1)
    keyed = index >= 0
    num_groups, num_keyless = int(index.max()) + 1 if frame.height else 0, int((~keyed).sum())
    index[~keyed] = num_groups + torch.arange(num_keyless)
    return Clusters(index, num_groups + num_keyless), keyed


def check_group_key(schema: pl.Schema, group_key: str) -> None:
    """Refuse a column that names no group.

    Raises:
        ConfigError: it is absent or holds lists.
    """
    if group_key not in schema:
        raise ConfigError(f"evaluate.group_key: no column {group_key!r} in the predictions, only {schema.names()}.")
    if schema[group_key].is_nested():
        raise ConfigError(
            f"evaluate.group_key: column {group_key!r} is {schema[group_key]}; a group needs one value per row."
        )


def gauc_metrics(
    source: Predictions, held: HeldRows | None, config: EvaluateConfig, *, total: float
) -> dict[str, MetricValue]:
    """GAUC and its coverage, of held rows or in parts of the groups; `total`: number of all rows, or their weight."""
    grouped = held.gauc(config.gauc_weight) if held is not None else _gauc_in_parts(source, config)
    share = MetricValue.undefined(one_class_reason(0, total))
    if total:
        share = MetricValue.of(grouped.num_rows_used / total)
    return {
        "gauc": grouped.auc,
        "gauc_groups": MetricValue.of(grouped.num_groups),
        "gauc_groups_used": MetricValue.of(grouped.num_groups_used),
        "gauc_row_share": share,
    }


def _gauc_in_parts(source: Predictions, config: EvaluateConfig) -> GroupedAuc:
    """GAUC by reading the rows once for each share of the groups that fits into memory.

    Groups are told apart by 64-bit hashes of their keys: of ten million, two share one with a chance of 3e-6.
    """
    num_parts = -(-source.num_rows // config.max_rows_in_memory)
    grouped = [_part_of_groups(source, config.group_key, part, num_parts).by_group() for part in range(num_parts)]
    _, area, positives, negatives = (torch.cat(column) for column in zip(*grouped, strict=True))
    return average_of_groups(area, positives, negatives, weighting=config.gauc_weight)


def _part_of_groups(source: Predictions, group_key: str, part: int, num_parts: int) -> GroupedCounts:
    key = pl.col("key")
    kept = []
    weight = [WEIGHT] if WEIGHT in source.columns else []
    for chunk in source.chunks(list(dict.fromkeys(["label", "logit", group_key, *weight]))):
        keys = group_keys(chunk[group_key])
        rows = chunk.with_columns(key=keys.hash(seed=0)).filter(keys.is_not_null())
        rows = rows.filter(key % num_parts == part)
        kept.append(rows.select("label", "logit", key.reinterpret(signed=True), *weight))
    frame = pl.concat(kept)
    labels, logits, groups, *weights = (torch.from_numpy(frame[name].to_numpy(writable=True)) for name in frame.columns)
    return GroupedCounts.from_rows(labels, logits, groups, *weights)
