"""GF-CF: two linear filters of a history, one over common users, one ideal low-pass; nothing is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows
from recsys.retrieval.eigenvectors import leading_eigenvectors
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class GFCFConfig(FittedConfig):
    """score = r (S^T S + alpha D^-1/2 V V^T D^1/2), S = D_u^-1/2 R D_i^-1/2, V its first right singular vectors.

    Source: Shen et al., How powerful is graph convolution for recommendation?, CIKM 2021, arXiv:2108.07567, eq. 12.
    """

    alpha: float = 0.3  # weight of the ideal low-pass filter; 0: the linear filter alone
    num_vectors: int = 256
    seed: int = 0  # of the first guess at the singular vectors

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ConfigError(f"retrieval.model.alpha={self.alpha}: must be 0 or more.")
        if self.num_vectors < 1:
            raise ConfigError(f"retrieval.model.num_vectors={self.num_vectors}: must be 1 or more.")

    def fit(self, interactions: Interactions) -> Recommender:
        """Normalise, then find the singular vectors."""
        users, items = interactions.users, interactions.items
        degrees = interactions.item_degrees.double()
        values = (interactions.user_degrees[users].double() * degrees[items]).rsqrt().float()
        by_user = SparseRows.of(users, items, values, num_rows=interactions.num_users)
        by_item = SparseRows.of(items, users, values, num_rows=interactions.num_items)
        # An item without users has no 1 / sqrt(degree); its vectors are 0, so that any finite scale does.
        root = degrees.clamp(min=1).sqrt().float().unsqueeze(1)
        vectors = self._singular_vectors(by_user, by_item)
        return GFCFRecommender(
            user_offsets=by_user.offsets,
            user_columns=by_user.columns,
            user_values=by_user.values,
            item_offsets=by_item.offsets,
            item_columns=by_item.columns,
            item_values=by_item.values,
            into=vectors / root,
            out_of=vectors * root * self.alpha,
        )

    def _singular_vectors(self, by_user: SparseRows, by_item: SparseRows) -> Tensor:
        """Right singular vectors, float32 (M, k), of the largest singular values; signs do not matter."""
        num_items = by_item.num_rows
        return leading_eigenvectors(
            lambda vectors: by_item.product(by_user.product(vectors)),
            num_items,
            min(self.num_vectors, num_items),
            seed=self.seed,
            device=by_item.values.device,
        )


class GFCFRecommender(Recommender):
    """Both filters of a history; users have nothing of their own. Sparse matrices as `SparseRows` holds them."""

    user_offsets: Tensor
    user_columns: Tensor
    user_values: Tensor
    item_offsets: Tensor
    item_columns: Tensor
    item_values: Tensor
    into: Tensor
    out_of: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        """Keep S by users, S^T by items, and `into`, `out_of` float32 (M, k), whose product is the low-pass filter."""
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, tensors[name])

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M)."""
        rows = torch.repeat_interleave(torch.arange(users.size(0), device=users.device), offsets[1:] - offsets[:-1])
        met = torch.zeros(self.into.size(0), users.size(0), device=users.device)
        met[items, rows] = 1.0
        spread = product(self.user_columns, met, self.user_offsets, self.user_values)
        linear = product(self.item_columns, spread, self.item_offsets, self.item_values).t()
        low_pass = torch.embedding_bag(self.into, items, offsets, False, 0, False, None, True)[0]
        return linear + low_pass @ self.out_of.t()


NAMES = tuple(GFCFRecommender.__annotations__)


def product(columns: Tensor, x: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix, its rows compressed, times `x`, scriptable."""
    return torch.embedding_bag(x, columns, offsets, False, 0, False, values, True)[0]
