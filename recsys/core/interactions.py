"""`Interactions`: which users met which items, as pairs of ids in one fixed order."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys.core.errors import DataError


@dataclass(frozen=True)
class Interactions:
    """E distinct pairs by user, then by item. Ids are those of the vocabularies: id 0 is unknown and is in no pair.

    `users`, `items`: int64 (E,), in [1, num_users) and [1, num_items). No pair joins two users or two items, so the
    graph has no self loops, and a user or item without a pair is a node without neighbours.
    """

    users: Tensor
    items: Tensor
    num_users: int  # with the unknown id
    num_items: int  # with the unknown id

    @classmethod
    def of(cls, users: Tensor, items: Tensor, *, num_users: int, num_items: int) -> "Interactions":
        """Sort pairs and merge equal ones; those with an unknown user or item are left out.

        Raises:
            DataError: an id lies outside its range, or nothing is left.
        """
        for name, ids, bound in (("user", users, num_users), ("item", items, num_items)):
            bad = ((ids < 0) | (ids >= bound)).nonzero()
            if bad.numel():
                raise DataError(
                    f"{name} id {int(ids[bad[0]])} at position {int(bad[0])} of the interactions: ids lie in "
                    f"[0, {bound}). Ingest the data again."
                )
        known = (users > 0) & (items > 0)
        keys = torch.unique(users[known] * num_items + items[known])
        if not keys.numel():
            raise DataError("there are no interactions of a known user with a known item. Give more rows.")
        return cls(keys // num_items, keys % num_items, num_users, num_items)

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return self.users.numel()

    @cached_property
    def keys(self) -> Tensor:
        """`user * num_items + item` of every pair, int64 (E,), ascending."""
        return self.users * self.num_items + self.items

    @cached_property
    def user_degrees(self) -> Tensor:
        """Items that each user met, int64 (num_users,)."""
        return torch.bincount(self.users, minlength=self.num_users)

    @cached_property
    def item_degrees(self) -> Tensor:
        """Users that met each item, int64 (num_items,)."""
        return torch.bincount(self.items, minlength=self.num_items)

    @cached_property
    def offsets(self) -> Tensor:
        """Where the items of each user begin, int64 (num_users + 1,)."""
        return torch.nn.functional.pad(self.user_degrees.cumsum(0), (1, 0))

    def of_users(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Items of some users, one user after the other.

        Args:
            users: int64 (B,).

        Returns:
            (items int64 (N,), offsets int64 (B + 1,)).
        """
        return csr_rows(self.items, self.offsets, users)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each pair is one of these, bool, shape of both arguments after broadcasting."""
        keys = users * self.num_items + items
        at = torch.searchsorted(self.keys, keys).clamp_(max=self.num_pairs - 1)
        return self.keys[at] == keys

    def only(self, kept: Tensor) -> "Interactions":
        """Some of these pairs, bool (E,), over the same ids."""
        kept = kept.to(self.users.device)
        return Interactions(self.users[kept], self.items[kept], self.num_users, self.num_items)

    def joined(self, other: "Interactions") -> "Interactions":
        """These pairs and those of `other`, over the same ids."""
        assert (self.num_users, self.num_items) == (other.num_users, other.num_items)
        users, items = torch.cat([self.users, other.users]), torch.cat([self.items, other.items])
        return Interactions.of(users, items, num_users=self.num_users, num_items=self.num_items)


def csr_rows(values: Tensor, offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a ragged array; scriptable.

    Args:
        values: (N,), row r is `values[offsets[r]:offsets[r + 1]]`.
        offsets: int64 (R + 1,).
        rows: int64 (B,), each in [0, R).

    Returns:
        (values of these rows, one after the other; their offsets, int64 (B + 1,)).
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    ends = torch.cumsum(lengths, 0)
    shift = torch.repeat_interleave(starts - (ends - lengths), lengths)
    return values[torch.arange(shift.numel(), device=values.device) + shift], torch.cat(
        [torch.zeros_like(ends[:1]), ends]
    )
