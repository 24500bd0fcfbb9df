"""Metrics of every slice of every column, from rows that are read in parts."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.contrast import adjusted, contrast_by_group, contrast_of
from recsys.evaluate.held import HeldRows
from recsys.evaluate.result import Contrast, SliceRow
from recsys.evaluate.scored import read_scored, scored_columns
from recsys.evaluate.slices import Slicing, check_sliceable, fit_slicing
from recsys.evaluate.source import Predictions
from recsys.evaluate.statistics import WEIGHTED, Statistics, core_metrics
from recsys.metrics import MetricValue, auc_standard_error

FREQUENCY = "frequency of "
"""Before a feature's name: the column of predictions that says how often training saw the row's id."""
DAY = "day of "


def sliced_columns(config: EvaluateConfig) -> list[tuple[str, str, bool]]:
    """(Name to show, column of the predictions, whether it is split by day) of all slices that are asked for."""
    frequencies = [FREQUENCY + feature for feature in config.frequency_slices]
    plain = [(column, column, False) for column in (*config.slices, *frequencies)]
    return plain + [(DAY + column, column, True) for column in config.day_slices]


def check_slices(source: Predictions, config: EvaluateConfig) -> None:
    """Refuse columns that are absent or cannot be sliced.

    Raises:
        ConfigError: naming the column.
    """
    for _, column, by_day in sliced_columns(config):
        check_sliceable(source.schema, column, by_day=by_day)


def slice_rows(
    source: Predictions, everything: Statistics, held: HeldRows | None, config: EvaluateConfig
) -> tuple[SliceRow, ...]:
    """All slices, in the order of the configuration, with tests against the rest adjusted over all of them."""
    rows: list[SliceRow] = []
    for name, column, by_day in sliced_columns(config):
        try:
            slicing = fit_slicing((chunk[column] for chunk in source.chunks([column])), config, by_day=by_day)
        except DataError as error:  # hours of scoring are not thrown away for a slice
            rows.append(_refused(name, everything, str(error), config))
            continue
        rows += _rows_of_column(source, (name, column, slicing), (everything, held), config)
    contrasts = adjusted([row.versus_rest for row in rows])
    return tuple(replace(row, versus_rest=found) for row, found in zip(rows, contrasts, strict=True))


def _rows_of_column(
    source: Predictions,
    sliced: tuple[str, str, Slicing],
    whole: tuple[Statistics, HeldRows | None],
    config: EvaluateConfig,
) -> Iterator[SliceRow]:
    name, column, slicing = sliced
    everything, held = whole
    codes = torch.cat([slicing.codes(chunk[column]).to(torch.int32) for chunk in source.chunks([column])])
    sizes = torch.bincount(codes, minlength=len(slicing.names)).tolist()
    for code, part in _statistics(source, codes, sizes, config.max_rows_in_memory):
        metrics = core_metrics(part, config)
        versus_rest = Contrast.undefined(f"only {sizes[code]} rows, fewer than min_slice_rows={config.min_slice_rows}")
        if sizes[code] < config.min_slice_rows:
            metrics = dict.fromkeys(metrics, versus_rest.difference)
        elif not config.group_key:
            versus_rest = contrast_of(part.counts, everything.counts)
        else:
            metrics["auc_standard_error"], versus_rest = _by_group(held, codes == code, config)
        yield SliceRow(
            column=name,
            value=slicing.names[code],
            num_rows=part.num_rows,
            num_positives=part.num_positives,
            metrics=metrics,
            versus_rest=versus_rest,
        )


def _by_group(held: HeldRows | None, inside: Tensor, config: EvaluateConfig) -> tuple[MetricValue, Contrast]:
    if held is None or held.weights is not None:
        reason = too_many_rows(inside.numel(), config) if held is None else WEIGHTED
        return MetricValue.undefined(reason), Contrast.undefined(reason)
    error = auc_standard_error(held.labels[inside], held.logits[inside], held.clusters.index[inside])
    return error, contrast_by_group(held, inside)


def too_many_rows(num_rows: int, config: EvaluateConfig) -> str:
    """Why something that needs all rows at once is not computed."""
    return f"{num_rows:,} rows are more than max_rows_in_memory={config.max_rows_in_memory:,}"


def _statistics(
    source: Predictions, codes: Tensor, sizes: list[int], max_rows: int
) -> Iterator[tuple[int, Statistics]]:
    """(Code, statistic) of every slice with rows; the rows are read once for as many slices as fit into memory."""
    waiting = [code for code, size in enumerate(sizes) if size]
    while waiting:
        taken = [waiting.pop(0)]
        while waiting and sum(sizes[code] for code in (*taken, waiting[0])) <= max_rows:
            taken.append(waiting.pop(0))
        parts: dict[int, list[Statistics]] = {code: [] for code in taken}
        for code, statistics in _parts(source, codes, taken):
            statistics.join(parts[code])
        yield from ((code, Statistics.merged(parts.pop(code))) for code in taken)


def _parts(source: Predictions, codes: Tensor, taken: list[int]) -> Iterator[tuple[int, Statistics]]:
    start = 0
    for chunk in source.chunks(scored_columns(source.columns)):
        scored, here = read_scored(chunk), codes[start : start + chunk.height]
        start += chunk.height
        for code in taken:
            rows = (here == code).nonzero().flatten()
            if rows.numel():
                yield code, Statistics.of(scored.take(rows))


def _refused(name: str, everything: Statistics, reason: str, config: EvaluateConfig) -> SliceRow:
    metrics = dict.fromkeys(core_metrics(everything, config), MetricValue.undefined(reason))
    return SliceRow(
        column=name,
        value="(all)",
        num_rows=everything.num_rows,
        num_positives=everything.num_positives,
        metrics=metrics,
        versus_rest=Contrast.undefined(reason),
    )
