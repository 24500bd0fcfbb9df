"""Samplers: what they may draw, how often, and that seeds decide."""

import math
from collections import Counter

import pytest
import torch

from recsys.core.errors import DataError
from recsys.core.interactions import Interactions
from recsys.retrieval.popularity import PopularityConfig
from recsys.retrieval.sampler import Positives, SamplerConfig, epoch_pairs, positive_log_probability
from recsys.retrieval.triples import NEGATIVE, POSITIVE, USER, TripleSource
from recsys.retrieval.uniform import UniformConfig
from tests.retrieval.world import interactions

TINY = Interactions.of(
    torch.tensor([1, 1, 1, 2, 3, 3]), torch.tensor([1, 2, 5, 5, 1, 4]), num_users=5, num_items=7
)  # user 4 has nothing, item 3 and 6 nobody
SAMPLERS = [UniformConfig(), PopularityConfig(), PopularityConfig(power=0.0)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("config", SAMPLERS)
def test_negatives_are_never_met_and_follow_their_law(config: SamplerConfig) -> None:
    sampler = config.negatives(TINY)
    users = torch.tensor([1, 2, 3, 4]).repeat(6000)
    drawn = sampler.draw(users, 2, generator())
    assert drawn.shape == (24_000, 2) and drawn.min() >= 1 and drawn.max() <= 6
    assert not TINY.contains(users.unsqueeze(1), drawn).any()
    law = sampler.log_probability.exp()
    for user in (1, 2, 3, 4):
        free = ~TINY.contains(torch.full((7,), user), torch.arange(7))
        free[0] = False
        shares = torch.bincount(drawn[users == user].flatten(), minlength=7) / 12_000
        expected = law * free
        if float(expected.sum()) == 0:
            expected = free.float()
        torch.testing.assert_close(shares, (expected / expected.sum()).float(), rtol=0, atol=0.02)


def test_a_user_who_met_everything_popular_gets_something_else() -> None:
    users, items = torch.tensor([1, 1, 2]), torch.tensor([1, 2, 1])
    graph = Interactions.of(users, items, num_users=3, num_items=4)
    assert (PopularityConfig().negatives(graph).draw(torch.tensor([1] * 9), 3, generator()) == 3).all()


def test_a_user_who_met_all_items_is_named() -> None:
    graph = Interactions.of(torch.tensor([1, 2, 2]), torch.tensor([1, 1, 2]), num_users=3, num_items=3)
    with pytest.raises(DataError, match=r"user id 2 .* met all 2 items"):
        UniformConfig().negatives(graph)


@pytest.mark.parametrize("positives", list(Positives))
@pytest.mark.parametrize("kind", [UniformConfig, PopularityConfig])
def test_pairs_of_a_user_who_met_all_items_are_drawn_only_where_no_negatives_are(
    positives: Positives, kind: type[SamplerConfig]
) -> None:
    graph = Interactions.of(torch.tensor([1, 1, 2, 2, 3]), torch.tensor([1, 2, 1, 3, 2]), num_users=5, num_items=4)
    full = Interactions.of(torch.tensor([4, 4, 4]), torch.tensor([1, 2, 3]), num_users=5, num_items=4)
    both = graph.joined(full)
    for num_negatives, users, rows in ((2, {1, 2, 3}, 5), (0, {1, 2, 3, 4}, 8)):
        source = TripleSource(both, kind(positives=positives), batch_size=3, num_negatives=num_negatives, seed=1)
        ids = [batch.sparse.to_dict() for epoch in range(9) for batch in source.epoch(epoch)]
        assert {user for batch in ids for user in batch[USER].values().tolist()} == users
        assert source.num_rows == rows
        for batch in ids:
            assert both.contains(batch[USER].values(), batch[POSITIVE].values()).all()
            negatives = batch[NEGATIVE].values().view(-1, max(num_negatives, 1))
            assert not both.contains(batch[USER].values()[: len(negatives)].unsqueeze(1), negatives).any()
    with pytest.raises(DataError, match="every user met all 3 items"):
        TripleSource(full, kind(positives=positives), batch_size=3, num_negatives=1, seed=1)


def test_user_uniform_pairs_take_users_alike_then_their_items_alike() -> None:
    drawn = Counter[int]()
    for seed in range(4000):
        drawn.update(epoch_pairs(TINY, Positives.USER_UNIFORM, generator(seed)).tolist())
    total = sum(drawn.values())
    expected = [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]
    assert [drawn[pair] / total for pair in range(6)] == pytest.approx(expected, abs=0.01)
    law = positive_log_probability(TINY, Positives.USER_UNIFORM).exp()
    assert law.tolist() == pytest.approx([0, 1 / 9 + 1 / 6, 1 / 9, 0, 1 / 6, 1 / 9 + 1 / 3, 0], abs=1e-6)


def test_interaction_uniform_pairs_come_once_each() -> None:
    assert sorted(epoch_pairs(TINY, Positives.INTERACTION_UNIFORM, generator()).tolist()) == list(range(6))
    law = positive_log_probability(TINY, Positives.INTERACTION_UNIFORM)
    assert law[1] == pytest.approx(math.log(2 / 6)) and law[3] == -math.inf


def source(seed: int = 3) -> TripleSource:
    return TripleSource(interactions(), UniformConfig(), batch_size=50, num_negatives=3, seed=seed)


def flat(found: TripleSource, epoch: int, start: int = 0) -> list[torch.Tensor]:
    return [batch.sparse.values() for batch in found.epoch(epoch, start)]


def test_batches_depend_on_seed_epoch_and_number_alone() -> None:
    whole = flat(source(), 1)
    assert len(whole) == source().num_batches
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], flat(source(), 1, 2), strict=True))
    assert not torch.equal(whole[0], flat(source(), 2)[0])
    assert not torch.equal(whole[0], flat(source(4), 1)[0])


def test_a_batch_holds_pairs_and_their_negatives_row_by_row() -> None:
    graph = interactions()
    rows = 0
    for number, batch in enumerate(source().epoch(0)):
        ids = batch.sparse.to_dict()
        users, positives = ids[USER].values(), ids[POSITIVE].values()
        assert users.numel() == source().rows_of(number)
        assert graph.contains(users, positives).all()
        assert not graph.contains(users.unsqueeze(1), ids[NEGATIVE].values().view(-1, 3)).any()
        rows += users.numel()
    assert rows == graph.num_pairs == source().num_rows
