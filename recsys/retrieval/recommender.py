"""`Recommender`: scores of all items for some users. What evaluation ranks and what export scripts.

Legend: B users, H items of their histories together, M items with the unknown one (id 0), d width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from recsys.core.component import load_class
from recsys.core.errors import DataError


class Recommender(nn.Module):
    """Base of all recommenders; scriptable with ATen operators only. Constructors take tensors, by name.

    `forward(users, items, offsets)` takes user ids, int64 (B,), 0 for a user that training never met, and the history
    of each: items int64 (H,), offsets int64 (B + 1,). It returns float32 (B, M), higher is better. A recommender that
    learned something of a user uses it; for user 0, or where it learned nothing of users, the history alone counts.
    """

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M)."""
        raise NotImplementedError


class DotRecommender(Recommender):
    """Dot products of user and item vectors; a new user's vector is the scaled sum of his items' fold-in vectors.

    A subclass that stores the three matrices otherwise reads them otherwise: `user_vectors`, `item_vectors`, `sums_of`.
    """

    users: Tensor
    items: Tensor
    fold_in: Tensor

    def __init__(self, *, users: Tensor, items: Tensor, fold_in: Tensor) -> None:
        """Keep users (U, d), items (M, d), and fold_in (M, d): what an item adds to the vector of a new user."""
        super().__init__()
        self.register_buffer("users", users)
        self.register_buffer("items", items)
        self.register_buffer("fold_in", fold_in)

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M)."""
        return self.vectors(users, items, offsets) @ self.item_vectors().t()

    def vectors(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Vectors of users, float32 (B, d); arguments as of `forward`."""
        vectors = self.user_vectors(users)
        new = (users == 0).nonzero().squeeze(1)
        if new.numel() > 0:
            vectors = torch.where((users == 0).unsqueeze(1), self.of_history(items, offsets), vectors)
        return vectors

    def of_history(self, items: Tensor, offsets: Tensor) -> Tensor:
        """Vectors of users known by their histories alone, float32 (B, d): one step of propagation."""
        degrees = (offsets[1:] - offsets[:-1]).clamp(min=1)
        return self.sums_of(items, offsets) * degrees.float().rsqrt().unsqueeze(1)

    def user_vectors(self, users: Tensor) -> Tensor:
        """Rows of users, float32 (B, d)."""
        return self.users[users]

    def item_vectors(self) -> Tensor:
        """Rows of all items, float32 (M, d)."""
        return self.items

    def sums_of(self, items: Tensor, offsets: Tensor) -> Tensor:
        """Sums of the fold-in rows of histories, float32 (B, d)."""
        return torch.embedding_bag(self.fold_in, items, offsets, False, 0, False, None, True)[0]


class NeighborRecommender(Recommender):
    """Sums of similarities: each item of the history speaks for its nearest neighbours."""

    neighbors: Tensor
    similarities: Tensor

    def __init__(self, *, neighbors: Tensor, similarities: Tensor) -> None:
        """Keep neighbors int64 (M, n) and similarities float32 (M, n) of each item; 0 where it has fewer."""
        super().__init__()
        self.register_buffer("neighbors", neighbors)
        self.register_buffer("similarities", similarities)

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M)."""
        num_users, num_items = users.size(0), self.neighbors.size(0)
        rows = torch.repeat_interleave(torch.arange(num_users, device=users.device), offsets[1:] - offsets[:-1])
        places = (rows * num_items).unsqueeze(1) + self.neighbors[items]
        scores = torch.zeros(num_users * num_items, device=users.device)
        scores.index_add_(0, places.flatten(), self.similarities[items].flatten())
        return scores.view(num_users, num_items)


class WeightRecommender(Recommender):
    """Sums of the rows of a dense item-item matrix, one row for each item of the history."""

    weights: Tensor

    def __init__(self, *, weights: Tensor) -> None:
        """Keep weights float32 (M, M): row i is what having met item i says of every item."""
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M)."""
        return torch.embedding_bag(self.weights, items, offsets, False, 0, False, None, True)[0]


def save_recommender(recommender: Recommender, path: Path) -> None:
    """Write class and tensors."""
    kind = type(recommender)
    torch.save({"class": f"{kind.__module__}.{kind.__qualname__}", "tensors": dict(recommender.named_buffers())}, path)


def load_recommender(path: Path) -> Recommender:
    """Read what `save_recommender` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        stored = torch.load(path, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable recommender ({error}). Train again.") from error
    found = load_class(stored["class"])(**stored["tensors"])
    assert isinstance(found, Recommender)
    return found
