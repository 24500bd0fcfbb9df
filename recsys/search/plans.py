"""A choice as a `TablePlan`: narrow tables whose rows are laid into the columns that were chosen, zeros elsewhere.

No projection: what a supernet leaves of an embedding is what its retrained table holds, and it costs no bytes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.mde import PopularityRemap
from recsys.embeddings.method import full_table
from recsys.embeddings.min_count import KeepFirst
from recsys.search.choice import Choice, Piece, Pieces, Space, with_rows


class Columns(Combiner):
    """A narrow row in some columns of the embedding, zeros in the others."""

    columns: Tensor

    def __init__(self, columns: list[int], embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        # A prefix, by far the commonest, is known by its length and padded without an index.
        self.is_prefix = columns == list(range(len(columns)))
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, float32, shape (N, embedding_dim)."""
        row = rows[0]
        if self.is_prefix:
            return torch.nn.functional.pad(row, (0, self.embedding_dim - row.shape[1]))
        wide = torch.zeros(row.shape[0], self.embedding_dim, dtype=row.dtype, device=row.device)
        return wide.index_copy(1, self.columns, row)


def check_pieces(firsts: Sequence[int], sizes: Sequence[int]) -> None:
    """Refuse pieces that are not one after the other, as only a file edited by hand can have them.

    Raises:
        ConfigError: they overlap, or there are not as many firsts as sizes.
    """
    ends = [0, *(first + size for first, size in zip(firsts, sizes, strict=False))]
    if len(firsts) != len(sizes) or any(first < end for first, end in zip(firsts, ends, strict=False)):
        raise ConfigError(
            f"firsts={list(firsts)}, sizes={list(sizes)}: pieces of ids must have a first id and a size each, and "
            "begin where the one before ends, or later. Write the plan anew with pipelines.search."
        )


class KeptPieces(PopularityRemap):
    """As `PopularityRemap`, with ids in none of the pieces kept reading as id 0 does: row 0 of the first piece."""

    starts: Tensor

    def __init__(self, firsts: list[int], sizes: list[int]) -> None:
        super().__init__(sizes)
        check_pieces(firsts, sizes)
        self.register_buffer("firsts", torch.tensor(firsts, dtype=torch.int64).unsqueeze(1), persistent=False)


class PieceColumns(Combiner):
    """The row of the id's piece in that piece's columns; ids in none of the pieces have the row of the first.

    Not linear, because it chooses by id: multi-valued features combine per id, then pool.
    """

    linear: bool = False

    def __init__(self, firsts: list[int], sizes: list[int], columns: list[list[int]], embedding_dim: int) -> None:
        super().__init__()
        check_pieces(firsts, sizes)
        self.embedding_dim = embedding_dim
        self.bounds = [(first, first + size) for first, size in zip(firsts, sizes, strict=True)]
        self.parts = torch.nn.ModuleList(Columns(own, embedding_dim) for own in columns)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, float32, shape (N, embedding_dim)."""
        total = torch.zeros(ids.numel(), self.embedding_dim, dtype=rows[0].dtype, device=rows[0].device)
        elsewhere = torch.ones_like(ids, dtype=torch.bool)
        for first, end in self.bounds[1:]:
            elsewhere = elsewhere & ((ids < first) | (ids >= end))
        for number, part in enumerate(self.parts):
            first, end = self.bounds[number]
            inside = elsewhere if number == 0 else (ids >= first) & (ids < end)
            total = total + part(ids, [rows[number] * inside.unsqueeze(1)])
        return total


def plan_of(space: Space, choice: Choice) -> TablePlan:
    """The plan of a choice; its bytes are the choice's."""
    pairs = zip(space.features, choice.features, strict=True)
    plan = TablePlan.merge([_plan_one(feature, pieces, space.init) for feature, pieces in pairs])
    assert plan.num_bytes == choice.num_bytes, "a plan takes other bytes than the choice that it was made of"
    return plan


def _plan_one(feature: FeatureSpec, pieces: Pieces, init: Init) -> TablePlan:
    kept = with_rows(pieces)
    if len(kept) > 1:
        return _plan_pieces(feature, kept, init)
    (_, only), width = kept[0], feature.embedding_dim
    if only.shared_rows:
        return HashConfig(init=init).plan_group([feature], budget_bytes=only.num_bytes)
    whole = full_table(feature, init).features[0]
    remap = whole.remap if len(pieces) == 1 else Component.of(KeepFirst, num_kept=only.size)
    combiner = whole.combiner
    if len(only.columns) < width:
        combiner = Component.of(Columns, columns=list(only.columns), embedding_dim=width)
    (table,) = _tables(feature, [only], init)
    entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=combiner)
    return TablePlan(tables=(table,), features=(entry,))


def _plan_pieces(feature: FeatureSpec, kept: Sequence[tuple[int, Piece]], init: Init) -> TablePlan:
    firsts, sizes = [first for first, _ in kept], [piece.size for _, piece in kept]
    tables = _tables(feature, [piece for _, piece in kept], init)
    columns = [list(piece.columns) for _, piece in kept]
    entry = FeaturePlan(
        feature=feature,
        tables=tuple(table.name for table in tables),
        remap=Component.of(KeptPieces, firsts=firsts, sizes=sizes),
        combiner=Component.of(
            PieceColumns, firsts=firsts, sizes=sizes, columns=columns, embedding_dim=feature.embedding_dim
        ),
    )
    return TablePlan(tables=tables, features=(entry,))


def _tables(feature: FeatureSpec, pieces: Sequence[Piece], init: Init) -> tuple[TableSpec, ...]:
    return tuple(
        TableSpec(
            name=f"table_{feature.name}" + (f"_piece{number}" if len(pieces) > 1 else ""),
            num_embeddings=piece.num_rows,
            embedding_dim=len(piece.columns),
            init=init,
        )
        for number, piece in enumerate(pieces)
    )
