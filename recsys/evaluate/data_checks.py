"""Checks of the data before any number: train rows in test, duplicates, drift, unseen values, leaks of one column."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.labels import LABEL, LabelStatistics
from recsys.core.manifest import Manifest
from recsys.evaluate.alone import alone_of
from recsys.evaluate.columns import Column, IdColumn, NumericColumn
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.overlap import SEEDS, HashedRows, Overlap, row_hashes
from recsys.metrics import MetricValue, StabilityIndex, population_stability_index

logger = logging.getLogger(__name__)

Read = Callable[[str, Sequence[str]], Iterator[pl.DataFrame]]
"""(split, columns) -> its rows in parts."""

TRAIN, TEST = "train", "test"
OF_CLICKS, OF_NUMBERS = (MetricValue.undefined(f"labels are {what}") for what in ("clicks", "numbers"))
UNPLANNED = MetricValue.undefined("no embedding is looked up")
SAMPLE_ROWS = 1 << 18  # of a numeric column, for its deciles
MANY_EQUAL, LARGE_DRIFT, MANY_UNSEEN, RATE_CHANGE, RATE_ERRORS = 0.01, 0.25, 0.05, 0.1, 3.0
MAX_CORRELATION = 0.95
"""A single feature that correlates with number labels as much is reported as a leak."""


@dataclass(frozen=True, kw_only=True)
class FeatureCheck:
    """One feature: how it moved from train to test, and what it says of the label alone."""

    feature: str
    stability: StabilityIndex
    train_unseen: MetricValue  # share of look-ups out of vocabulary
    test_unseen: MetricValue
    colliding: MetricValue  # share of training look-ups whose id shares all its rows with another one, as planned
    auc: MetricValue  # of the feature alone, on test rows; undefined where labels are numbers
    correlation: MetricValue = OF_CLICKS  # likewise, with number labels


@dataclass(frozen=True, kw_only=True)
class DataChecks:
    """What was found; `findings` are sentences, the gravest first, empty where nothing stands out."""

    num_train_rows: int
    num_test_rows: int
    train_rate: MetricValue  # of positives; the mean of number labels
    test_rate: MetricValue
    overlap: Overlap
    features: tuple[FeatureCheck, ...]
    findings: tuple[str, ...]
    numbers: bool = False  # what labels are


def check_data(
    manifest: Manifest, read: Read, config: EvaluateConfig, *, colliding: Mapping[str, MetricValue]
) -> DataChecks:
    """Check train against test; reads train once (and the numeric columns once more) and test twice.

    Args:
        manifest: of the data.
        read: gives the rows of a split.
        config: what is asked for, and how many rows may be in memory.
        colliding: by categorical column, the share of training look-ups that the plan of the tables cannot tell from
            those of another id; a column that is absent is undefined.

    Memory: 16 bytes a test row and 8 a training row, where `max_rows_in_memory` allows; 16 MiB a categorical feature.

    Raises:
        DataError: a file is unreadable.
    """
    schema = manifest.schema
    names = [f.name for f in schema.numeric] + [f.name for f in schema.categorical]
    columns: list[Column] = []
    columns += _numeric_columns(manifest, read)
    columns += [IdColumn.of(manifest, feature) for feature in schema.categorical]
    sizes = {split: manifest.splits[split].num_rows for split in (TRAIN, TEST)}
    meeting = _test_hashes(read, names) if sizes[TEST] <= config.max_rows_in_memory else None
    kept: list[Tensor] | None = [] if sizes[TRAIN] <= config.max_rows_in_memory else None
    for frame in read(TRAIN, [LABEL, *names]):
        labels = torch.from_numpy(frame[LABEL].to_numpy(writable=True))
        for column in columns:
            column.add_train(frame[column.name], labels)
        _meet(frame, names, meeting, kept)
    total = 0.0
    for frame in read(TEST, [LABEL, *names]):
        labels = torch.from_numpy(frame[LABEL].to_numpy(writable=True))
        total += float(labels.double().sum())
        for column in columns:
            column.add_test(frame[column.name], labels)
    numbers = manifest.label is not None
    features = tuple(_feature(column, colliding.get(column.name, UNPLANNED), numbers=numbers) for column in columns)
    checks = _checks(manifest, (features, total), _overlap(meeting, kept, config), config)
    for finding in checks.findings:
        logger.warning("data: %s", finding)
    return checks


def _numeric_columns(manifest: Manifest, read: Read) -> list[NumericColumn]:
    names = [feature.name for feature in manifest.schema.numeric]
    if not names:
        return []
    step = -(-max(manifest.splits[TRAIN].num_rows, 1) // SAMPLE_ROWS)
    sample = pl.concat([frame.gather_every(step) for frame in read(TRAIN, names)])
    values = (torch.from_numpy(sample[name].to_numpy(writable=True)) for name in names)
    return [NumericColumn(name, own, alone_of(manifest)) for name, own in zip(names, values, strict=True)]


def _test_hashes(read: Read, names: Sequence[str]) -> tuple[HashedRows, HashedRows]:
    """Of features alone, and with the label."""
    parts = [_both_hashes(frame, names) for frame in read(TEST, [LABEL, *names])]
    alone, labelled = zip(*parts, strict=True) if parts else ((torch.empty(0).long(),),) * 2
    return HashedRows(torch.cat(alone)), HashedRows(torch.cat(labelled))


def _both_hashes(frame: pl.DataFrame, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    return row_hashes(frame.select(names), seed=SEEDS[0]), row_hashes(frame.select([LABEL, *names]), seed=SEEDS[1])


def _meet(
    frame: pl.DataFrame, names: Sequence[str], meeting: tuple[HashedRows, HashedRows] | None, kept: list[Tensor] | None
) -> None:
    if meeting is None and kept is None:
        return
    hashes = _both_hashes(frame, names)
    if meeting is not None:
        for rows, these in zip(meeting, hashes, strict=True):
            rows.meet(these)
    if kept is not None:
        kept.append(hashes[1])


def _overlap(
    meeting: tuple[HashedRows, HashedRows] | None, kept: list[Tensor] | None, config: EvaluateConfig
) -> Overlap:
    too_many = MetricValue.undefined(f"there are more rows than max_rows_in_memory={config.max_rows_in_memory:,}")
    return Overlap(
        test_in_train=meeting[0].met_share if meeting is not None else too_many,
        test_in_train_with_label=meeting[1].met_share if meeting is not None else too_many,
        test_duplicates=meeting[1].repeated_share if meeting is not None else too_many,
        train_duplicates=HashedRows(torch.cat([torch.empty(0).long(), *kept])).repeated_share
        if kept is not None
        else too_many,
    )


def _checks(
    manifest: Manifest, counted: tuple[tuple[FeatureCheck, ...], float], overlap: Overlap, config: EvaluateConfig
) -> DataChecks:
    """`counted`: the features, and the sum of the test rows' labels."""
    features, total = counted
    splits = [manifest.splits[split] for split in (TRAIN, TEST)]
    label = manifest.label
    sums = [split.num_positive for split in splits] if label is None else [label.mean * splits[0].num_rows, total]
    rates = [
        MetricValue.of(each / split.num_rows) if split.num_rows else MetricValue.undefined("there are no rows")
        for each, split in zip(sums, splits, strict=True)
    ]
    sizes = splits[0].num_rows, splits[1].num_rows
    findings = [
        *_leaks(features, config.max_column_auc),
        *_equal_rows(overlap),
        *(_rate_change(rates, sizes) if label is None else _mean_change(rates, sizes, label)),
        *_drifts(features),
    ]
    return DataChecks(
        num_train_rows=sizes[0],
        num_test_rows=sizes[1],
        train_rate=rates[0],
        test_rate=rates[1],
        overlap=overlap,
        features=features,
        findings=tuple(findings),
        numbers=label is not None,
    )


def _feature(column: Column, colliding: MetricValue, *, numbers: bool) -> FeatureCheck:
    train, test = column.unseen()
    stability = population_stability_index(*column.bins())
    return FeatureCheck(
        feature=column.name,
        stability=stability,
        train_unseen=train,
        test_unseen=test,
        colliding=colliding,
        auc=OF_NUMBERS if numbers else column.alone(),
        correlation=column.alone() if numbers else OF_CLICKS,
    )


def _leaks(features: Sequence[FeatureCheck], limit: float) -> Iterator[str]:
    for check in features:
        if check.auc.value_or(0) >= limit:
            yield (
                f"{check.feature} alone reaches AUC {check.auc.value_or(0):.4f} on test rows: it may be written after "
                "the label is known, and would not be there when serving"
            )
        if abs(check.correlation.value_or(0)) >= MAX_CORRELATION:
            yield (
                f"{check.feature} alone has correlation {check.correlation.value_or(0):.4f} with the label on test "
                "rows: it may be written after the label is known, and would not be there when serving"
            )


def _equal_rows(overlap: Overlap) -> Iterator[str]:
    labelled = overlap.test_in_train_with_label.value_or(0)
    if labelled >= MANY_EQUAL:
        yield (
            f"{labelled:.1%} of test rows equal a training row in all features and the label: with few features that "
            "happens by itself, else rows were copied before the split"
        )
    for name, share in (("test", overlap.test_duplicates), ("training", overlap.train_duplicates)):
        if share.value_or(0) >= MANY_EQUAL:
            yield f"{share.value_or(0):.1%} of {name} rows repeat another one, label included"


def _rate_change(rates: Sequence[MetricValue], sizes: tuple[int, int]) -> Iterator[str]:
    before, after = (rate.value for rate in rates)
    if not before or after is None:
        return
    error = math.sqrt(sum(rate * (1 - rate) / size for rate, size in zip((before, after), sizes, strict=True)))
    if abs(after / before - 1) >= RATE_CHANGE and abs(after - before) > RATE_ERRORS * error:
        yield f"{before:.2%} of training rows are positive and {after:.2%} of test rows: calibration cannot be right"


def _mean_change(rates: Sequence[MetricValue], sizes: tuple[int, int], label: LabelStatistics) -> Iterator[str]:
    before, after = (rate.value for rate in rates)
    if before is None or after is None:
        return
    apart = (after - before) / label.std
    if abs(apart) >= RATE_CHANGE and abs(apart) > RATE_ERRORS * math.sqrt(sum(1 / size for size in sizes)):
        yield (
            f"labels average {before:.4g} in training and {after:.4g} in test, {abs(apart):.2f} standard deviations "
            "apart: predictions will be off on average"
        )


def _drifts(features: Sequence[FeatureCheck]) -> Iterator[str]:
    for check in features:
        index, chance = check.stability.index.value_or(0), check.stability.by_chance.value_or(0)
        if index - chance >= LARGE_DRIFT and index > 2 * chance:
            yield f"{check.feature} drifts from train to test: PSI {index:.2f} (chance alone gives {chance:.3f})"
        rise = check.test_unseen.value_or(0) - check.train_unseen.value_or(0)
        if rise >= MANY_UNSEEN:
            yield (
                f"{check.feature} has {check.test_unseen.value_or(0):.1%} of its test look-ups out of vocabulary, "
                f"{check.train_unseen.value_or(0):.1%} in train"
            )
