"""LightGCN as it was published and is mostly run: what `tools.bench_graph` measures beside.

Written from the formulas: a COO adjacency, one `torch.sparse.mm` a layer, gradients by autograd through every layer,
the mean of stacked layers, BPR with squared norms of layer 0, Adam over whole tables; lists of a hundred users at a
time from a dense row of sigmoids, with the propagation done again for each hundred, as its evaluation does.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from recsys.core.interactions import Interactions

USERS_AT_ONCE = 100
HIDDEN = -1024.0
"""Score of what a user has met."""


class PublishedLightGCN(nn.Module):
    """Source: He et al., LightGCN, SIGIR 2020, arXiv:2002.02126, eq. 3-15; K = 3, d = 64, decay 1e-4, Adam 1e-3."""

    def __init__(self, interactions: Interactions, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.interactions, self.num_layers = interactions, num_layers
        self.users = nn.Embedding(interactions.num_users, width)
        self.items = nn.Embedding(interactions.num_items, width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)
        self.graph = _coo(interactions)

    def propagated(self) -> tuple[Tensor, Tensor]:
        """Users and items as scored."""
        layers = [torch.cat([self.users.weight, self.items.weight])]
        for _ in range(self.num_layers):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        mean = torch.stack(layers, dim=1).mean(dim=1)
        users, items = mean.split([self.interactions.num_users, self.interactions.num_items])
        return users, items

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor, *, decay: float = 1e-4) -> Tensor:
        """BPR, a mean over rows; all arguments int64 (B,)."""
        all_users, all_items = self.propagated()
        user, positive, negative = all_users[users], all_items[positives], all_items[negatives]
        rows = (self.users(users), self.items(positives), self.items(negatives))
        squares = sum((row.square().sum() for row in rows), torch.zeros(()))
        ranked = softplus((user * negative).sum(1) - (user * positive).sum(1)).mean()
        total: Tensor = ranked + decay * 0.5 * squares / len(users)
        return total

    @torch.no_grad()
    def lists(self, users: Tensor, k: int, *, propagate: bool = True) -> Tensor:
        """The best k items of a hundred users, int64 (B, k); `propagate` False scores with what is at hand."""
        all_users, all_items = self.propagated() if propagate else (self.users.weight, self.items.weight)
        scores = torch.sigmoid(all_users[users] @ all_items.t())
        items, offsets = self.interactions.of_users(users)
        scores[torch.repeat_interleave(torch.arange(len(users)), offsets.diff()), items] = HIDDEN
        return scores.topk(k).indices


def _coo(interactions: Interactions) -> Tensor:
    users, items = interactions.users, interactions.items + interactions.num_users
    size = interactions.num_users + interactions.num_items
    degrees = torch.bincount(torch.cat([users, items]), minlength=size).float()
    values = (degrees[users] * degrees[items]).rsqrt()
    places = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
    return torch.sparse_coo_tensor(places, torch.cat([values, values]), (size, size), check_invariants=False).coalesce()
