"""SimpleX: a user is his own embedding and the mean of what he met."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows
from recsys.retrieval.dimension_shards import refuse_ranks
from recsys.retrieval.encoder import Encoder, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class SimpleXConfig(EncoderConfig):
    """The rest of the paper is retrieval/loss=ccl, with cosines, which its yaml takes. One rank only.

    MF-CCL is retrieval/model=mf with that loss.
    """

    own_share: float = 0.5  # of a user's own embedding; the rest is his history's

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.own_share < 1:
            raise ConfigError(f"retrieval.model.own_share={self.own_share}: must lie in [0, 1); 1 is mf.")

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over these histories."""
        refuse_ranks("simplex")
        return SimpleX(self, interactions).to(device)


class SimpleX(Encoder):
    """user = g e_u + (1 - g) W mean of e_i over his items; item = e_i.

    Source: Mao et al., SimpleX, CIKM 2021, arXiv:2109.12613, eq. 2-3 with average pooling. Histories are whole, where
    the authors take the first 100 or so items.
    """

    def __init__(self, config: SimpleXConfig, interactions: Interactions) -> None:
        super().__init__()
        self._share, self._num_users = config.own_share, interactions.num_users
        self.project = nn.Linear(config.embedding_dim, config.embedding_dim, bias=False)
        nn.init.xavier_uniform_(self.project.weight)
        users, items = interactions.users, interactions.items
        values = 1 / interactions.user_degrees[users].float()
        self._by_user = SparseRows.of(users, items, values, num_rows=interactions.num_users)
        self._by_item = SparseRows.of(items, users, values, num_rows=interactions.num_items)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return users with their histories, items as they are."""
        users, items = nodes.split([self._num_users, len(nodes) - self._num_users])
        history: Tensor = _Mean.apply(items, self._by_user, self._by_item)  # type: ignore[no-untyped-call]
        return torch.cat([self._share * users + (1 - self._share) * self.project(history), items])

    def fold_in(self, nodes: Tensor) -> Tensor:
        """A new user has his history alone: a sum by the root of its size, in place of its mean, orders items alike."""
        folded: Tensor = self.project(nodes)
        return folded


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseRows, transposed: SparseRows) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.transposed = transposed
        return matrix.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's own
        return ctx.transposed.product(gradients[0].contiguous()), None, None
