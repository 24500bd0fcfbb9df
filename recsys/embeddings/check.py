"""Do the parts of one feature's plan fit each other? A plan may come from a file, and no method has seen it then."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan
from recsys.core.specs import FeatureSpec, TableSpec

TRIED_IDS = 1000
"""Of a feature, evenly spread, about: what a hash makes of one id tells little of the others."""


def check_feature(entry: FeaturePlan, remap: Remap, combiner: Combiner, tables: Mapping[str, TableSpec]) -> None:
    """Try the remap on some ids, the last one among them, and the combiner on two.

    Args:
        remap: built from the entry; on the meta device rows are counted only.
        tables: by name, those of the entry at least.
    Raises:
        ConfigError: the remap has another number of look-ups than the entry has tables, or rows that a table does not
            have, or the combiner does not give the feature's width.
    """
    feature = entry.feature
    ids = _tried_ids(feature)
    with torch.no_grad():
        rows = remap(ids)
    if rows.shape != (len(entry.tables), len(ids)):
        raise ConfigError(
            f"the plan of feature {feature.name!r} lists {len(entry.tables)} table(s) {list(entry.tables)}, but "
            f"{entry.remap.target} gives rows of shape {tuple(rows.shape)} for {len(ids)} ids. Name one table for each "
            "look-up."
        )
    used = [tables[name] for name in entry.tables]
    for lookup, least in enumerate([] if rows.is_meta else rows.amin(dim=1).tolist()):
        if least < 0:
            raise ConfigError(
                f"the plan of feature {feature.name!r}: look-up {lookup} reads row {least}, and rows count from 0. "
                f"Check the params of {entry.remap.target}."
            )
    for lookup, (table, needed) in enumerate(zip(used, _rows_needed(remap, rows), strict=True)):
        if needed > table.num_embeddings:
            raise ConfigError(
                f"the plan of feature {feature.name!r}: look-up {lookup} reads up to row {needed - 1}, but table "
                f"{table.name!r} has only num_embeddings={table.num_embeddings}. Make both fit."
            )
    _check_width(entry, combiner, ids[[0, -1]], used)


def _tried_ids(feature: FeatureSpec) -> Tensor:
    last = (feature.num_embeddings or TRIED_IDS) - 1
    return torch.cat([torch.arange(0, last, max(1, last // TRIED_IDS)), torch.tensor([last])])


def _rows_needed(remap: Remap, rows: Tensor) -> list[int]:
    """Rows that each look-up needs at least: what the remap says, and what it gave for some ids."""
    said = remap.rows_needed() or [1] * len(rows)
    given = [1] * len(rows) if rows.is_meta else [row + 1 for row in rows.amax(dim=1).tolist()]
    return [max(pair) for pair in zip(said, given, strict=True)]


def _check_width(entry: FeaturePlan, combiner: Combiner, ids: Tensor, used: list[TableSpec]) -> None:
    widths, wanted = [table.embedding_dim for table in used], entry.feature.embedding_dim
    try:
        with torch.no_grad():
            shape = tuple(combiner(ids, [torch.zeros(len(ids), width) for width in widths]).shape)
    except (RuntimeError, IndexError) as error:
        raise ConfigError(
            f"the plan of feature {entry.feature.name!r}: {entry.combiner.target} cannot join rows of widths {widths} "
            f"({error}). Give its tables widths that fit it."
        ) from error
    if shape != (len(ids), wanted):
        raise ConfigError(
            f"the plan of feature {entry.feature.name!r} has embedding_dim={wanted}, but {entry.combiner.target} makes "
            f"{shape[-1]} of rows of widths {widths}. Make both fit."
        )
