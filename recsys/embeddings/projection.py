"""Tables narrower than the embedding, and the matrices that widen their rows: what `narrow` and `mde` share."""

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.method import FLOAT_BYTES, full_table, num_ids


class Projection(Combiner):
    """A narrow row times a matrix without bias (Ginart et al., arXiv:1909.11810, section 3)."""

    def __init__(self, row_dim: int, embedding_dim: int) -> None:
        super().__init__()
        # With this deviation an embedding starts, and under Adagrad moves, at the scale of a full table's.
        self.weight = nn.Parameter(torch.empty(row_dim, embedding_dim).normal_(0.0, row_dim**-0.5))

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the projected row, float32, shape (N, embedding_dim)."""
        return rows[0] @ self.weight


def projected_bytes(num_rows: int, width: int, embedding_dim: int) -> int:
    """Bytes of a table of `width`, with its projection where that is not the whole `embedding_dim`."""
    return (num_rows + (embedding_dim if width < embedding_dim else 0)) * width * FLOAT_BYTES


def worthwhile_width(num_rows: int, width: int, embedding_dim: int) -> int:
    """`width`, or `embedding_dim` where a narrow table would with its projection take no less memory.

    The memory of what is returned never shrinks as `width` grows.
    """
    full = projected_bytes(num_rows, embedding_dim, embedding_dim)
    return width if projected_bytes(num_rows, width, embedding_dim) < full else embedding_dim


def narrow_table(feature: FeatureSpec, width: int, init: Init) -> TablePlan:
    """The table of one feature at `width`, with its projection; the full table where that takes no more."""
    size = num_ids(feature)
    width = worthwhile_width(size, width, feature.embedding_dim)
    if width == feature.embedding_dim:
        return full_table(feature, init)
    table = TableSpec(name=f"table_{feature.name}", num_embeddings=size, embedding_dim=width, init=init)
    remap = full_table(feature, init).features[0].remap
    combiner = Component.of(Projection, row_dim=width, embedding_dim=feature.embedding_dim)
    entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=combiner)
    return TablePlan(tables=(table,), features=(entry,))
