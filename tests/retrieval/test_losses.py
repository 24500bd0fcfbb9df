"""Losses against loops over single numbers; gradients reach what they should."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from recsys.core.errors import ConfigError
from recsys.retrieval.bpr import BPRConfig
from recsys.retrieval.ccl import CCLConfig
from recsys.retrieval.config import RetrievalConfig, Similarity
from recsys.retrieval.degree_weighted import DegreeWeightedConfig
from recsys.retrieval.direct_au import DirectAUConfig, uniformity
from recsys.retrieval.hard import HardConfig
from recsys.retrieval.in_batch_softmax import InBatchSoftmaxConfig
from recsys.retrieval.loss import MATRIX_PAYS, LossConfig, Triples
from recsys.retrieval.popularity import PopularityConfig
from recsys.retrieval.sampled_softmax import SampledSoftmaxConfig
from recsys.retrieval.triples import Drawn
from recsys.retrieval.uniform import UniformConfig

ROWS, NEGATIVES, WIDTH, ITEMS = 5, 3, 4, 9


def triples() -> Triples:
    generator = torch.Generator().manual_seed(2)
    positives = torch.randn(ROWS, WIDTH, generator=generator)
    positives[2] = positives[0]  # rows 0 and 2 share their item
    return Triples(
        users=torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True),
        positives=positives.requires_grad_(),
        negatives=torch.randn(ROWS * NEGATIVES, WIDTH, generator=generator, requires_grad=True),
        negative_rows=torch.arange(ROWS * NEGATIVES).view(ROWS, NEGATIVES),
        user_ids=torch.arange(1, ROWS + 1),
        positive_ids=torch.tensor([1, 2, 1, 4, 5]),
        negative_ids=torch.randint(1, ITEMS, (ROWS, NEGATIVES), generator=generator),
        log_positive=torch.log(torch.arange(ITEMS) / 36),
        log_negative=torch.log(torch.arange(ITEMS) / 36),
        user_degrees=torch.arange(ROWS + 1) + 1,
        item_degrees=torch.arange(ITEMS),
    )


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bpr() -> None:
    t = triples()
    expected = sum(
        softplus(dot(t.users[b], t.negatives[b * NEGATIVES + n]) - dot(t.users[b], t.positives[b])) / NEGATIVES
        for b in range(ROWS)
        for n in range(NEGATIVES)
    )
    assert float(BPRConfig()(t).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("correct", [False, True])
def test_sampled_softmax(correct: bool) -> None:
    t, expected = triples(), 0.0
    for b in range(ROWS):
        positive = dot(t.users[b], t.positives[b]) / 0.5
        others = [
            dot(t.users[b], t.negatives[b * NEGATIVES + n]) / 0.5
            - (math.log(NEGATIVES * int(t.negative_ids[b, n]) / 36) if correct else 0)
            for n in range(NEGATIVES)
        ]
        expected += math.log(sum(math.exp(score) for score in [positive, *others])) - positive
    assert float(SampledSoftmaxConfig(temperature=0.5, correct=correct)(t).detach()) == pytest.approx(
        expected, rel=1e-5
    )


def test_scores_of_few_and_of_many_negatives_are_those_of_their_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    given = triples()
    for count in (len(given.negatives), MATRIX_PAYS * NEGATIVES + 1):  # a product of matrices, then row by row
        rows = torch.randint(count, (ROWS, NEGATIVES), generator=generator)
        t = replace(given, negatives=torch.randn(count, WIDTH, generator=generator), negative_rows=rows)
        expected = (t.users.unsqueeze(1) * t.negatives[rows]).sum(2)
        torch.testing.assert_close(t.negative_scores(), expected)


@pytest.mark.parametrize("num_items", [4, 9])
def test_what_is_drawn_more_often_than_there_are_items_is_looked_up_once(num_items: int) -> None:
    negatives = torch.tensor([[1, 3, 3], [3, 1, 1]])
    drawn = Drawn.of(negatives, num_items)
    assert torch.equal(drawn.items[drawn.rows], negatives)
    assert drawn.times.tolist() == ([3, 3] if num_items == 4 else [1] * 6)


@pytest.mark.parametrize("rounds", [1, 5])
def test_sampled_softmax_estimates_the_softmax_over_all_items(rounds: int) -> None:
    """Where every item is drawn as often as expected, the estimate is exact, however many draws there are."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.tensor([item for item in range(1, ITEMS) for _ in range(item * rounds)]).repeat(2, 1)
    users, items = torch.randn(2, WIDTH, generator=generator), torch.randn(ITEMS, WIDTH, generator=generator)
    positives = torch.randn(2, WIDTH, generator=generator)  # of items that are not drawn
    t = Triples(
        users=users,
        positives=positives,
        negatives=items,
        negative_rows=drawn,
        user_ids=torch.tensor([1, 2]),
        positive_ids=torch.tensor([ITEMS, ITEMS]),
        negative_ids=drawn,
        log_positive=torch.zeros(ITEMS + 1),
        log_negative=torch.log(torch.arange(ITEMS) / 36),
        user_degrees=torch.ones(3),
        item_degrees=torch.ones(ITEMS + 1),
    )
    logits = torch.cat([(users * positives).sum(1, keepdim=True), users @ items[1:].t()], dim=1)
    expected = cross_entropy(logits, torch.zeros(2, dtype=torch.int64), reduction="sum")
    torch.testing.assert_close(SampledSoftmaxConfig()(t), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("correct", [False, True])
def test_in_batch_softmax_leaves_out_the_same_item_of_another_row(correct: bool) -> None:
    t, expected = triples(), 0.0
    ids = t.positive_ids.tolist()
    for b in range(ROWS):
        scores = {
            c: dot(t.users[b], t.positives[c]) / 0.5 - (math.log(ids[c] / 36) if correct else 0)
            for c in range(ROWS)
            if c == b or ids[c] != ids[b]
        }
        expected += math.log(sum(math.exp(score) for score in scores.values())) - scores[b]
    assert float(InBatchSoftmaxConfig(temperature=0.5, correct=correct)(t).detach()) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("rows", [7, 256, 600])
@pytest.mark.parametrize("correct", [False, True])
def test_in_batch_softmax_and_its_gradients_are_those_of_the_whole_matrix_of_logits(rows: int, correct: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(31, WIDTH, generator=generator, dtype=torch.float64).float().requires_grad_()
    users = torch.randn(rows, WIDTH, generator=generator).requires_grad_()
    ids = torch.randint(1, 31, (rows,), generator=generator)
    log_positive = torch.rand(31, generator=generator).log()
    none = torch.empty(rows, 0, dtype=torch.int64)

    def gradients(loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return loss.detach(), *torch.autograd.grad(3 * loss, (users, table))

    t = Triples(
        users=users,
        positives=table[ids],
        negatives=torch.empty(0, WIDTH),
        negative_rows=none,
        user_ids=ids,
        positive_ids=ids,
        negative_ids=none,
        log_positive=log_positive,
        log_negative=log_positive,
        user_degrees=log_positive,
        item_degrees=log_positive,
    )
    logits = users @ table[ids].t() / 0.3 - (log_positive[ids] if correct else 0)
    same = (ids.unsqueeze(1) == ids).fill_diagonal_(False)
    expected = cross_entropy(logits.masked_fill(same, float("-inf")), torch.arange(rows), reduction="sum")
    found = InBatchSoftmaxConfig(temperature=0.3, correct=correct)(t)
    for ours, theirs in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-4)


def test_ccl_leaves_negatives_below_the_margin_alone() -> None:
    t, expected = triples(), 0.0
    for b in range(ROWS):
        expected += max(0.0, 1 - dot(t.users[b], t.positives[b]))
        expected += (
            7.0
            * sum(max(0.0, dot(t.users[b], t.negatives[b * NEGATIVES + n]) - 0.4) for n in range(NEGATIVES))
            / NEGATIVES
        )
    assert float(CCLConfig(margin=0.4, negative_weight=7.0)(t).detach()) == pytest.approx(expected, rel=1e-5)


def unit(x: torch.Tensor) -> list[float]:
    length = math.sqrt(sum(value**2 for value in x.tolist()))
    return [value / length for value in x.tolist()]


def squared_distance(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def test_direct_au_aligns_pairs_and_spreads_users_and_items() -> None:
    t = triples()
    users, items = ([unit(row) for row in part] for part in (t.users, t.positives))
    align = sum(squared_distance(u, i) for u, i in zip(users, items, strict=True)) / ROWS
    pairs = [(a, b) for a in range(ROWS) for b in range(a)]
    spread = [
        math.log(sum(math.exp(-2 * squared_distance(side[a], side[b])) for a, b in pairs) / len(pairs))
        for side in (users, items)
    ]
    expected = ROWS * (align + 3.0 * sum(spread) / 2)
    assert float(DirectAUConfig(gamma=3.0)(t).detach()) == pytest.approx(expected, rel=1e-5)
    assert float(uniformity(t.users[:1].detach())) == 0.0, "one row has no pair"


def test_degree_weighted_entropy() -> None:
    t, expected = triples(), 0.0
    config = DegreeWeightedConfig(
        positive_floor=0.5, positive_scale=2.0, negative_floor=0.25, negative_scale=3.0, negative_weight=4.0
    )
    for b in range(ROWS):
        d = b + 2  # degree of user b + 1
        own = math.sqrt(d + 1) / d
        at = int(t.positive_ids[b])
        expected += (0.5 + 2 * own / math.sqrt(at + 1)) * softplus(-dot(t.users[b], t.positives[b]))
        for n in range(NEGATIVES):
            weight = 0.25 + 3 * own / math.sqrt(int(t.negative_ids[b, n]) + 1)
            expected += 4 * weight * softplus(dot(t.users[b], t.negatives[b * NEGATIVES + n])) / NEGATIVES
    assert float(config(t).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        BPRConfig(),
        SampledSoftmaxConfig(),
        InBatchSoftmaxConfig(),
        CCLConfig(margin=-0.9),
        DirectAUConfig(),
        DegreeWeightedConfig(),
    ],
)
def test_gradients_reach_all_vectors_that_are_used(loss: LossConfig) -> None:
    t = triples()
    loss(t).backward()
    used = [t.users, t.positives, *([t.negatives] if loss.needs_negatives else [])]
    assert all(part.grad is not None and bool((part.grad != 0).any()) for part in used)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CCLConfig, {"margin": 1.0}),
        (CCLConfig, {"negative_weight": 0.0}),
        (DirectAUConfig, {"gamma": -1.0}),
        (DegreeWeightedConfig, {"negative_floor": -1.0}),
    ],
)
def test_impossible_settings_are_named(kind: type[LossConfig], wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"retrieval.loss.{next(iter(wrong))}="):
        kind(**wrong)


@pytest.mark.parametrize("kind", [SampledSoftmaxConfig, InBatchSoftmaxConfig])
def test_impossible_temperatures_are_refused(kind: type[SampledSoftmaxConfig]) -> None:
    with pytest.raises(ConfigError, match=r"temperature=0\.0"):
        kind(temperature=0.0)


def test_choices_that_change_nothing_are_told() -> None:
    for loss in (InBatchSoftmaxConfig(), DirectAUConfig()):
        assert not RetrievalConfig(loss=loss).without_effect
        for sampler in (HardConfig(), PopularityConfig(), UniformConfig(num_negatives=8)):
            assert "draws no negatives" in RetrievalConfig(loss=loss, sampler=sampler).without_effect
            assert not RetrievalConfig(sampler=sampler).without_effect
    assert "retrieval.similarity=cosine" in RetrievalConfig(loss=CCLConfig()).without_effect
    assert not RetrievalConfig(loss=CCLConfig(), similarity=Similarity.COSINE).without_effect
