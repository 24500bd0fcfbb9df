"""Full ranking against an independent evaluation in plain Python, user by user, item by item."""

import math
from pathlib import Path

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.data.interactions import read_interactions, relevant_pairs
from recsys.retrieval.ranking import Ranking, Relevant, judge, rank
from recsys.retrieval.recommender import DotRecommender
from tests.retrieval.world import NUM_ITEMS, NUM_USERS, interactions

KS = (1, 5, 10)


def recommender(width: int = 4, *, num_users: int = NUM_USERS + 1, num_items: int = NUM_ITEMS + 1) -> DotRecommender:
    """Random vectors of few values, so that many scores are tied."""
    generator = torch.Generator().manual_seed(5)
    users = torch.randint(-2, 3, (num_users, width), generator=generator).float()
    items = torch.randint(-2, 3, (num_items, width), generator=generator).float()
    return DotRecommender(users=users, items=items, fold_in=items)


def metrics_of_one(best: list[int], relevant: list[int], k: int) -> dict[str, float]:
    """Of one user's list."""
    hits = [item in relevant for item in best]
    ideal = sum(1 / math.log2(place + 2) for place in range(min(len(relevant), k)))
    gain = sum(1 / math.log2(place + 2) for place, hit in enumerate(hits) if hit)
    precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
    return {
        "recall": sum(hits) / len(relevant),
        "ndcg": gain / ideal,
        "hit": float(any(hits)),
        "precision": sum(hits) / k,
        "map": sum(precisions) / min(len(relevant), k),
    }


def plain(
    model: DotRecommender, history: Interactions, pairs: list[tuple[int, int]], ks: tuple[int, ...]
) -> dict[str, float]:
    """The same metrics, sharing no code: dictionaries, sorted lists, sums."""
    met: dict[int, set[int]] = {}
    for user, item in zip(history.users.tolist(), history.items.tolist(), strict=True):
        met.setdefault(user, set()).add(item)
    wanted: dict[int, list[int]] = {}
    for user, item in pairs:
        if user:
            wanted.setdefault(user, []).append(item)
    vectors, of_items = model.users.double().tolist(), model.items.double().tolist()
    sums: dict[str, float] = {}
    shown: dict[int, set[int]] = {k: set() for k in ks}
    for user, relevant in wanted.items():
        scores = {
            item: sum(a * b for a, b in zip(vectors[user], of_items[item], strict=True))
            for item in range(1, len(of_items))
            if item not in met.get(user, set())
        }
        listed = sorted(scores, key=lambda item: (-scores[item], item))
        for k in ks:
            shown[k] |= set(listed[:k])
            for name, value in metrics_of_one(listed[:k], relevant, k).items():
                sums[f"{name}_at_{k}"] = sums.get(f"{name}_at_{k}", 0.0) + value / len(wanted)
    return sums | {f"coverage_at_{k}": len(items) / (len(of_items) - 1) for k, items in shown.items()}


def assert_agrees(model: DotRecommender, history: Interactions, users: torch.Tensor, items: torch.Tensor) -> None:
    relevant = Relevant.of(users, items, history)
    lists = rank(model, relevant.users, history, k=max(KS), users_at_once=7)
    found = judge(lists, relevant, ks=KS, num_shown=history.num_items - 1).means()
    expected = plain(model, history, list(zip(users.tolist(), items.tolist(), strict=True)), KS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name


def test_it_agrees_with_plain_python_where_scores_are_tied_and_ids_unknown() -> None:
    history, later = interactions(0), interactions(1)
    new = ~history.contains(later.users, later.items)
    users, items = later.users[new].clone(), later.items[new].clone()
    items[::9] = 0  # items that training never met
    users[::17] = 0  # users that it never met
    distinct = torch.unique(torch.stack([users, items], 1)[(items > 0)], dim=0)
    assert_agrees(recommender(), history, distinct[:, 0], distinct[:, 1])
    relevant = Relevant.of(users, items, history)
    assert relevant.num_cold_pairs == int((users == 0).sum()) and relevant.num_unknown_items > 0


def test_unknown_items_count_as_missed() -> None:
    history = interactions()
    relevant = Relevant.of(torch.tensor([1, 1, 1]), torch.tensor([0, 0, 5]), history)
    found = judge(Ranking(torch.tensor([1]), torch.tensor([[5, 7]])), relevant, ks=[2], num_shown=NUM_ITEMS).means()
    assert found["recall_at_2"].value == pytest.approx(1 / 3)


def test_a_user_who_has_met_nearly_all_gets_a_short_list() -> None:
    users, items = torch.ones(NUM_ITEMS - 2, dtype=torch.int64), torch.arange(3, NUM_ITEMS + 1)
    history = Interactions.of(users, items, num_users=2, num_items=NUM_ITEMS + 1)
    model = recommender(num_users=2)
    lists = rank(model, torch.tensor([1]), history, k=5, users_at_once=2)
    assert sorted(lists.items[0, :2].tolist()) == [1, 2] and lists.items[0, 2:].tolist() == [0, 0, 0]


def test_scores_that_are_no_numbers_are_refused() -> None:
    model = recommender()
    model.items[4] = float("nan")
    with pytest.raises(ConfigError, match="NaN"):
        rank(model, torch.tensor([1]), interactions(), k=5, users_at_once=2)


def test_it_agrees_with_plain_python_on_real_data(ml_1m_implicit: Path) -> None:
    history = read_interactions(ml_1m_implicit, ("train", "validation"))
    users, items = relevant_pairs(ml_1m_implicit, "test")
    few = users <= 150  # plain Python takes its time
    model = recommender(8, num_users=history.num_users, num_items=history.num_items)
    assert_agrees(model, history, users[few], items[few])
