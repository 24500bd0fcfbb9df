"""`ServingRecommender`: raw user keys or histories to raw item keys, with ATen operators only.

Legend: B users of a request, H items of their given histories together, M items with the unknown one, K places.
"""

# mypy: disable-error-code="operator"
# Methods of sub-modules are called here, and TorchScript reads a comment beside such a call as an annotation.

import torch
from torch import Tensor, nn

from recsys.core.interactions import Interactions, csr_rows
from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import Schema
from recsys.export.border import BorderCheck, border_tensors
from recsys.ops.top_k import hide, top_k


class ServingRecommender(nn.Module):
    """Vocabularies, what users had met, a recommender and the exact top-K, as one file."""

    item_keys: Tensor
    seen: Tensor
    seen_offsets: Tensor

    def __init__(
        self,
        recommender: nn.Module,
        encoder: nn.Module,
        *,
        schema: Schema,
        item_keys: Tensor,
        met: Interactions,
    ) -> None:
        """Join the parts.

        Args:
            recommender: `(users, items, offsets) -> scores (B, M)`.
            encoder: border tensors of `schema` to ids.
            schema: of the inputs: the user, then the items of a history, which is multi-valued.
            item_keys: int64 (M,), raw key of each id; that of id 0 stands for no item.
            met: what each known user has met, which is his history and is never listed.
        """
        super().__init__()
        self.recommender, self.encoder = recommender, encoder
        self.border = BorderCheck(border_tensors(schema))
        self.user_name, self.item_name = (column.name for column in schema.categorical)
        self.lengths_name = self.item_name + LENGTHS_SUFFIX
        self.register_buffer("item_keys", item_keys)
        self.register_buffer("seen", met.items.to(torch.int32))  # most of the file where users met many
        self.register_buffer("seen_offsets", met.offsets)

    def forward(self, features: dict[str, Tensor], k: int = 20, filter_seen: bool = True) -> tuple[Tensor, Tensor]:
        """List the k best items of each user.

        Args:
            features: `<user>`, int64 (B,), raw keys; a key that training lacks is a new user. Optional: `<item>`, int64
                (H,), raw keys of items that users met, one user after the other, and `<item>__lengths`, int64 (B,).
                They are added to what training knows of the user; for a new user they are all there is. A recommender
                with vectors of users has learned those of the known ones: there they are left out, and change nothing
                else.
            k: places of a list, 1 or more.
            filter_seen: list nothing that a user has met.

        Returns:
            (raw item keys, int64 (B, K); scores, float32 (B, K)), best first. Where there is nothing to list, the score
            is -inf. Of a new user without a history all scores are equal: items by frequency.

        Raises:
            RuntimeError: an input does not match the schema, or k is below 1.
        """
        if k < 1:
            raise RuntimeError(f"k={k}: a list has 1 place or more.")
        users, items, bounds = self.known(features)
        scores = self.recommender(users, items, bounds)
        hidden, ends = (items, bounds) if filter_seen else (items[:0], torch.zeros_like(bounds))
        best, values = top_k(hide(scores, hidden, ends), k)
        return self.item_keys[best], values

    def known(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of users, int64 (B,), and what they have met: items and offsets, int64 (B + 1,)."""
        if self.user_name in features and self.item_name not in features and self.lengths_name not in features:
            users = features[self.user_name]  # of any shape: the border tells what is wrong with it
            features = {
                self.user_name: users,
                self.item_name: users.reshape(-1)[:0],
                self.lengths_name: torch.zeros_like(users),
            }
        self.border(features)
        _, ids, offsets = self.encoder(features)
        items, bounds = self._histories(ids[0], ids[1], offsets[1])
        return ids[0], items, bounds

    def _histories(self, users: Tensor, given: Tensor, given_offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Each user's known and given items, distinct: (items, offsets)."""
        met, known_offsets = csr_rows(self.seen, self.seen_offsets, users)
        known = met.to(torch.int64)
        rows = torch.arange(users.size(0), device=users.device)
        of_known = torch.repeat_interleave(rows, known_offsets[1:] - known_offsets[:-1])
        of_given = torch.repeat_interleave(rows, given_offsets[1:] - given_offsets[:-1])
        size = self.item_keys.size(0)
        keys = torch.cat([of_known * size + known, of_given * size + given])
        keys = torch.unique(keys[keys % size > 0])
        counts = torch.bincount(torch.div(keys, size, rounding_mode="floor"), minlength=users.size(0))
        bounds = torch.cumsum(counts, 0)
        return keys % size, torch.cat([torch.zeros_like(bounds[:1]), bounds])


class ServingVectors(ServingRecommender):
    """One whose scores are dot products: it also says a user's vector, for an index of items to search."""

    @torch.jit.export
    def query(self, features: dict[str, Tensor]) -> Tensor:
        """Vectors of users, float32 (B, d); `features` as for `forward`."""
        users, items, bounds = self.known(features)
        vectors: Tensor = self.recommender.vectors(users, items, bounds)
        return vectors
