"""Exact top-K of all items for many users, a chunk of users at a time, and how good the lists are.

Order: by score, then by id, so that of equal scores the more frequent item comes first (ids are ranks by frequency).
The unknown item and items that a user has met are never listed; a list with too few items ends with empty places, id 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.progress import ProgressBar
from recsys.metrics import (
    MetricValue,
    average_precision_at_k,
    coverage_at_k,
    hit_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)
from recsys.ops.top_k import hide, top_k
from recsys.retrieval.recommender import Recommender


@dataclass(frozen=True)
class Ranking:
    """Lists of some users: `users` int64 (U,), `items` int64 (U, K), best first."""

    users: Tensor
    items: Tensor


@torch.no_grad()
def rank(
    recommender: Recommender, users: Tensor, history: Interactions, *, k: int, users_at_once: int, title: str = ""
) -> Ranking:
    """List the k best items of each user that are not in the history.

    Args:
        recommender: on the device of `history`.
        users: int64 (U,), none of them 0.
        history: what users have met: their histories, and what is left out.
        k: length of lists.
        users_at_once: bounds memory: 4 bytes for each of these and each item.
        title: of a progress bar; empty: none.

    Raises:
        ConfigError: a score is NaN.
    """
    parts = []
    with ProgressBar(title, total=users.numel(), enabled=bool(title)) as bar:
        for chunk in users.split(users_at_once):
            items, offsets = history.of_users(chunk)
            scores = recommender(chunk, items, offsets)
            if bool(scores.isnan().any()):
                raise ConfigError(
                    "a recommender's score is NaN. Training diverged: lower train.optimizer's learning rates."
                )
            parts.append(top_k(hide(scores, items, offsets), k)[0])
            bar.advance(chunk.numel())
    empty = torch.empty(0, min(k, history.num_items), dtype=torch.int64, device=users.device)
    return Ranking(users, torch.cat(parts) if parts else empty)


@dataclass(frozen=True)
class Relevant:
    """Held-out pairs of one split: what lists are judged by.

    `keys` int64, ascending, user * num_items + item of pairs with a known user and item; `counts` int64 (num_users,),
    pairs of each user with those of unknown items, which no list can hold. Pairs of users whom training never met are
    counted, and are in no mean.
    """

    keys: Tensor
    counts: Tensor
    num_items: int
    num_cold_pairs: int
    num_unknown_items: int

    @classmethod
    def of(cls, users: Tensor, items: Tensor, history: Interactions) -> "Relevant":
        """From pairs of a split, int64 (E,) each, ids 0 unknown."""
        known = users > 0
        users, items = users[known], items[known]
        keys = torch.unique(users * history.num_items + items)
        return cls(
            keys=keys[keys % history.num_items > 0],
            counts=torch.bincount(users, minlength=history.num_users),
            num_items=history.num_items,
            num_cold_pairs=int((~known).sum()),
            num_unknown_items=int((items == 0).sum()),
        )

    @property
    def users(self) -> Tensor:
        """Known users with at least one pair, int64, ascending."""
        return self.counts.nonzero().squeeze(1)

    def hits(self, ranking: Ranking) -> Tensor:
        """Whether each listed item is relevant, bool (U, K)."""
        wanted = ranking.users.unsqueeze(1) * self.num_items + ranking.items
        if not self.keys.numel():
            return torch.zeros_like(wanted, dtype=torch.bool)
        at = torch.searchsorted(self.keys, wanted).clamp_(max=self.keys.numel() - 1)
        return self.keys[at] == wanted


@dataclass(frozen=True, kw_only=True)
class UserMetrics:
    """Metrics of each user, float64 (U,) by name, such as `recall_at_20`; what means and intervals are made of."""

    values: dict[str, Tensor]
    coverage: dict[str, MetricValue]

    def means(self) -> dict[str, MetricValue]:
        """Mean of each metric over users, and coverage."""
        found = {name: _mean(values) for name, values in self.values.items()}
        return found | self.coverage


def judge(ranking: Ranking, relevant: Relevant, *, ks: Sequence[int], num_shown: int) -> UserMetrics:
    """Metrics at each number of places.

    Args:
        ranking: lists at least `max(ks)` long, or as long as there are items.
        relevant: of the split.
        ks: numbers of places.
        num_shown: items that could be listed, for coverage.
    """
    hits, counts = relevant.hits(ranking), relevant.counts[ranking.users]
    values: dict[str, Tensor] = {}
    coverage = {}
    for k in sorted(set(ks)):
        found = torch.nn.functional.pad(hits[:, :k], (0, max(k - hits.shape[1], 0)))
        values |= dict(_metrics(found, counts, k))
        coverage[f"coverage_at_{k}"] = coverage_at_k(ranking.items[:, :k], num_items=num_shown)
    return UserMetrics(values=values, coverage=coverage)


def _metrics(hits: Tensor, counts: Tensor, k: int) -> Iterator[tuple[str, Tensor]]:
    yield f"recall_at_{k}", recall_at_k(hits, counts)
    yield f"ndcg_at_{k}", ndcg_at_k(hits, counts)
    yield f"hit_at_{k}", hit_at_k(hits)
    yield f"precision_at_{k}", precision_at_k(hits)
    yield f"map_at_{k}", average_precision_at_k(hits, counts)


def _mean(values: Tensor) -> MetricValue:
    if not values.numel():
        return MetricValue.undefined("no user has a held-out pair")
    return MetricValue.of(float(values.mean()))
