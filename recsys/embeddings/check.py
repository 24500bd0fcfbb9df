"""Do the parts of one feature's plan fit each other? A plan may come from a file, and no method has seen it then."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan
from recsys.core.specs import TableSpec


def check_feature(entry: FeaturePlan, remap: Remap, combiner: Combiner, tables: Mapping[str, TableSpec]) -> None:
    """Try remap and combiner on the first and the last id.

    Args:
        remap: built from the entry; on the meta device rows are counted only.
        tables: by name, those of the entry at least.
    Raises:
        ConfigError: the remap has another number of look-ups than the entry has tables, or rows beyond a table's last,
            or the combiner does not give the feature's width.
    """
    feature = entry.feature
    ids = torch.tensor([0, (feature.num_embeddings or 1) - 1])
    with torch.no_grad():
        rows = remap(ids)
    if rows.shape != (len(entry.tables), len(ids)):
        raise ConfigError(
            f"the plan of feature {feature.name!r} lists {len(entry.tables)} table(s) {list(entry.tables)}, but "
            f"{entry.remap.target} gives {tuple(rows.shape)} rows for {len(ids)} ids. Name one table for each look-up."
        )
    used = [tables[name] for name in entry.tables]
    for lookup, (table, needed) in enumerate(zip(used, _rows_needed(remap, rows), strict=True)):
        if needed > table.num_embeddings:
            raise ConfigError(
                f"the plan of feature {feature.name!r}: look-up {lookup} reads up to row {needed - 1}, but table "
                f"{table.name!r} has only num_embeddings={table.num_embeddings}. Make both fit."
            )
    _check_width(entry, combiner, ids, used)


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
