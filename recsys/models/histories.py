"""Which columns are a target, its history and the history's time gaps, and where a head finds them in its inputs.

A vocabulary that a single-valued and a multi-valued column share, such as `item` and `hist_item`, is a target with its
history; two such pairs may share one, such as an item's two attributes. The columns of one history (items, their
categories, time gaps) lie side by side: a row has equally many ids in each, and step t of all of them together is one
event.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Pooling, Read


class Columns(NamedTuple):
    """The features of a data set by their part in a sequence model, in the data set's order."""

    targets: list[FeatureSpec]  # named after the first target, its own read; each target comes before its history
    gaps: list[FeatureSpec]  # the time gaps, unpooled; at most one
    others: list[FeatureSpec]


def split_columns(categorical: Sequence[FeatureSpec], *, time_gaps: str, model: str) -> Columns:
    """Find targets and histories.

    Args:
        categorical: one feature per vocabulary, with all columns that read it.
        time_gaps: multi-valued column of the time between each event of the history and now; "": none is read.
        model: named by errors.
    Raises:
        ConfigError: no column has a history, a vocabulary has more histories than targets, or `time_gaps` is no
            multi-valued column on its own.
    """
    columns = Columns([], [], [])
    for spec in categorical:
        if time_gaps and spec.source == time_gaps and not spec.also and spec.max_length != 1:
            columns.gaps.append(replace(spec, pooling=_unpooled(spec.source, spec.pooling)))
        elif {read.max_length == 1 for read in spec.reads} == {True, False}:
            columns.targets.append(_with_histories(spec, model=model))
        else:
            columns.others.append(spec)
    sources = [read.source for spec in categorical for read in spec.reads]
    if not columns.targets:
        raise ConfigError(
            f"model {model} reads what a user did before, but no categorical feature among {sources} has a history. "
            "Declare one in the dataset's schema: a multi-valued feature with `vocabulary:` naming the single-valued "
            "feature of the same ids, such as hist_item: {multi_valued: true, vocabulary: item}."
        )
    unpooled = [read for spec in [*columns.targets, *columns.gaps] for read in spec.reads]
    _check_lengths([read for read in unpooled if read.pooling is Pooling.NONE])
    if time_gaps and not columns.gaps:
        raise ConfigError(
            f"model.time_gaps={time_gaps!r}: the schema has no multi-valued categorical feature of that name with a "
            f"vocabulary of its own; features are {sources}. Name such a column, or set model.time_gaps=''."
        )
    return columns


def without_extras(target: FeatureSpec) -> FeatureSpec:
    """A feature of `Columns.targets` without the single-valued columns that have no history."""
    last = max(place for place, read in enumerate(target.also) if read.pooling is Pooling.NONE)
    return replace(target, also=target.also[: last + 1])


def _with_histories(spec: FeatureSpec, *, model: str) -> FeatureSpec:
    """The feature with each target before its history, in the columns' order, then further single-valued columns."""
    targets = [read for read in spec.reads if read.max_length == 1]
    histories = [
        replace(read, pooling=_unpooled(read.source, read.pooling)) for read in spec.reads if read.max_length != 1
    ]
    if len(histories) > len(targets):
        raise ConfigError(
            f"columns {[read.source for read in histories]} share the vocabulary of "
            f"{[read.source for read in targets]}: model {model} reads one history of a column. Keep as many of them "
            "as there are such columns, or join them into one."
        )
    pairs = [read for pair in zip(targets, histories, strict=False) for read in pair]
    first, *also = [*pairs, *targets[len(histories) :]]
    return replace(
        spec, name=first.name, source=first.source, pooling=first.pooling, max_length=first.max_length, also=tuple(also)
    )


def _unpooled(source: str, pooling: Pooling) -> Pooling:
    if pooling is Pooling.WEIGHTED:
        raise ConfigError(
            f"column {source!r} has weights, which its ids are pooled by, and this model reads it as a history, step "
            "by step. Leave the weights out of the schema, or choose a model that pools."
        )
    return Pooling.NONE


def _check_lengths(histories: Sequence[Read]) -> None:
    for read in histories:
        if read.max_length != histories[0].max_length:
            raise ConfigError(
                f"max_length={read.max_length} of feature {read.source!r}: it lies beside {histories[0].source!r}, "
                f"which keeps {histories[0].max_length} values a row, and step t of both is one event. Give both the "
                "same max_length."
            )


@dataclass(frozen=True)
class History:
    """Where a head finds one history."""

    name: str
    sequence: int  # its number among the sequences
    target: int  # first column of its target among the pooled embeddings; for time gaps, which have none, -1
    width: int  # of an embedding, of step and target alike


def locate_histories(features: Sequence[FeatureSpec], *, time_gaps: str, model: str) -> list[History]:
    """Find each sequence and its target among the embeddings that come out; time gaps last.

    Args:
        features: as `ModelConfig.build` gets them.
        time_gaps: column without a target, as for `split_columns`.
        model: named by errors.
    Raises:
        ConfigError: a sequence does not follow its target.
    """
    found: list[History] = []
    column = sequence = 0
    for before, spec in zip([None, *features], features, strict=False):
        if spec.pooling is not Pooling.NONE:
            column += spec.embedding_dim
            continue
        is_gap = spec.source == time_gaps
        if not is_gap and (before is None or before.pooling is Pooling.NONE or before.max_length != 1):
            raise ConfigError(
                f"model {model} got features {[spec.name for spec in features]}: it reads each history right after its "
                f"target, but {spec.name!r} follows none. Keep the order of the configuration's `features`."
            )
        start = -1 if is_gap else column - spec.embedding_dim
        found.append(History(spec.name, sequence, start, spec.embedding_dim))
        sequence += 1
    return sorted(found, key=lambda history: history.target < 0)
