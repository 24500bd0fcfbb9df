"""`NarrowDots`: vectors in fewer bytes. Joins what rooms may not: a recommender and the tables of exported models."""

import torch
from torch import Tensor

from recsys.core.row_storage import pack
from recsys.core.specs import RowType, TableSpec
from recsys.export.serving_tables import table_module
from recsys.retrieval.recommender import DotRecommender, Recommender


class NarrowDots(DotRecommender):
    """A `DotRecommender` with rows of another type; all items' are made float32 anew for each request."""

    where: Tensor

    def __init__(self, exact: DotRecommender, row_type: RowType) -> None:
        """Store the vectors of `exact`; where rows of `row_type` would not be smaller they stay float32."""
        Recommender.__init__(self)  # without the float32 matrices
        matrices = {"users": exact.users, "items": exact.items, "fold_in": exact.fold_in}
        specs = {name: _spec(name, rows).narrowed(row_type) for name, rows in matrices.items()}
        self.num_items = exact.items.size(0)
        self.register_buffer("where", exact.items.new_empty(0))  # moves with the tables: TorchScript asks it for theirs
        self.user_table, self.item_table, self.fold_in_table = (
            table_module(pack(rows.contiguous(), specs[name].row_type), specs[name]) for name, rows in matrices.items()
        )

    def user_vectors(self, users: Tensor) -> Tensor:
        """Rows of users, float32 (B, d)."""
        rows: Tensor = self.user_table(users, torch.arange(users.size(0) + 1, device=users.device))
        return rows

    def item_vectors(self) -> Tensor:
        """Rows of all items, float32 (M, d)."""
        bounds = torch.arange(self.num_items + 1, device=self.where.device)
        rows: Tensor = self.item_table(bounds[:-1], bounds)
        return rows

    def sums_of(self, items: Tensor, offsets: Tensor) -> Tensor:
        """Sums of the fold-in rows of histories, float32 (B, d)."""
        sums: Tensor = self.fold_in_table(items, offsets)
        return sums


def _spec(name: str, rows: Tensor) -> TableSpec:
    return TableSpec(name=name, num_embeddings=rows.size(0), embedding_dim=rows.size(1))
