"""Quality of ranked lists over all items: what each user found, and how much of the catalogue was shown.

Legend: U users, K places of a list, best first. Each metric but coverage gives a value for each user, to be averaged.
"""

import torch
from torch import Tensor

from recsys.metrics.value import MetricValue


def recall_at_k(hits: Tensor, num_relevant: Tensor) -> Tensor:
    """Share of a user's relevant items that the list holds.

    Args:
        hits: bool (U, K), whether the item at each place is relevant.
        num_relevant: int64 (U,), relevant items of each user, >= 1: a user without any has no recall.

    Returns:
        float64 (U,). Source: LightGCN's evaluation; not divided by min(K, num_relevant), as some do.
    """
    return hits.sum(1).double() / num_relevant


def precision_at_k(hits: Tensor) -> Tensor:
    """Share of the K places that hold a relevant item, float64 (U,); arguments as of `recall_at_k`."""
    return hits.double().mean(1)


def hit_at_k(hits: Tensor) -> Tensor:
    """1 where the list holds a relevant item, else 0, float64 (U,); arguments as of `recall_at_k`."""
    return hits.any(1).double()


def ndcg_at_k(hits: Tensor, num_relevant: Tensor) -> Tensor:
    """Discounted gain 1 / log2(place + 1), places from 1, over that of a list that begins with all relevant items.

    Args:
        hits, num_relevant: as for `recall_at_k`.

    Returns:
        float64 (U,). Source: Järvelin and Kekäläinen, 2002, with gains of 0 and 1; the ideal list holds
        min(num_relevant, K) relevant items.
    """
    num_places = hits.shape[1]
    discounts = 1 / torch.log2(torch.arange(2, num_places + 2, dtype=torch.float64, device=hits.device))
    ideal = torch.cumsum(discounts, 0)[num_relevant.clamp(max=num_places) - 1]
    return (hits * discounts).sum(1) / ideal


def average_precision_at_k(hits: Tensor, num_relevant: Tensor) -> Tensor:
    """Precision at each place that holds a relevant item, summed, over min(num_relevant, K); its mean is MAP.

    Args:
        hits, num_relevant: as for `recall_at_k`.

    Returns:
        float64 (U,).
    """
    num_places = hits.shape[1]
    places = torch.arange(1, num_places + 1, device=hits.device)
    precisions = torch.cumsum(hits, 1).double() / places
    return (precisions * hits).sum(1) / num_relevant.clamp(max=num_places)


def coverage_at_k(ranked_items: Tensor, *, num_items: int) -> MetricValue:
    """Share of the catalogue that at least one list holds.

    Args:
        ranked_items: int64 (U, K), ids of items; 0 is an empty place.
        num_items: items that could be shown.

    Returns:
        Undefined without an item.
    """
    if num_items == 0:
        return MetricValue.undefined("there is no item to show")
    return MetricValue.of(torch.unique(ranked_items[ranked_items > 0]).numel() / num_items)
