"""What turns full tables into a supernet: a combiner that masks the rows of a feature, while training and in trials."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.plan import TablePlan
from recsys.embeddings.collection import parts_in
from recsys.embeddings.method import full_table
from recsys.search.choice import Choice, Pieces, Space


class Mask(Combiner):
    """The row of an id as the supernet shows it, and while a choice is on trial only the columns that the choice has.

    Not linear: masks are of ids, so multi-valued features mask every row, then pool. Ids that a choice drops are zeros
    here; in its plan they read the row of out-of-vocabulary ids, which can be learned.
    """

    linear: bool = False
    ends: Tensor

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        """Start as the identity.

        Args:
            sizes: of the feature's blocks of ids.
            embedding_dim: D.
        """
        super().__init__()
        self.embedding_dim, self.num_blocks = embedding_dim, len(sizes)
        # bucketize with the last end left out: ids beyond it, which do not exist, would be of no block.
        self.register_buffer("ends", torch.tensor(sizes, dtype=torch.int64).cumsum(0)[:-1], persistent=False)
        self._tried: tuple[Tensor, Tensor] | None = None

    def try_out(self, pieces: Pieces | None) -> None:
        """Show these pieces alone from now on; None shows all."""
        if pieces is None:
            self._tried = None
            return
        assert not any(piece.shared_rows for piece in pieces), "rows of a supernet are not shared"
        device = self.ends.device
        sizes = torch.tensor([piece.size for piece in pieces], device=device)
        shown = torch.zeros(len(pieces), self.embedding_dim, device=device)
        for number, piece in enumerate(pieces):
            shown[number, list(piece.columns)] = 1.0
        self._tried = (sizes.cumsum(0)[:-1], shown)

    def blocks_of(self, ids: Tensor) -> Tensor:
        """Number of each id's block, int64, shape of `ids`."""
        return torch.bucketize(ids, self.ends, right=True)

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """What the supernet shows of rows (N, D) of ids (N,)."""
        return row

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, float32, shape (N, D)."""
        shown = self.masked(ids, rows[0])
        if self._tried is not None:
            ends, columns = self._tried
            shown = shown * columns[torch.bucketize(ids, ends, right=True)]
        return shown


def supernet_plan(space: Space, mask: type[Mask], **params: float) -> TablePlan:
    """Full tables, each behind such a mask, whose further parameters are `params`."""
    plans = []
    for feature, blocks in zip(space.features, space.blocks, strict=True):
        full = full_table(feature, space.init)
        (entry,) = full.features
        sizes = [block.size for block in blocks]
        combiner = Component.of(mask, sizes=sizes, embedding_dim=feature.embedding_dim, **params)
        plans.append(TablePlan(tables=full.tables, features=(replace(entry, combiner=combiner),)))
    return TablePlan.merge(plans)


def masks_in(model: nn.Module, space: Space) -> list[Mask]:
    """The masks of a supernet, sharded or not, by the features of `space`."""
    parts = parts_in(model)
    found = [parts[feature.name][1] for feature in space.features]
    assert all(isinstance(mask, Mask) for mask in found)
    return found  # type: ignore[return-value]


def try_out(masks: Sequence[Mask], choice: Choice | None) -> None:
    """Let a supernet show what `choice` has, or all of it again."""
    for number, mask in enumerate(masks):
        mask.try_out(choice.features[number] if choice is not None else None)
