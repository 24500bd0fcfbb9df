"""Losses against loops over single numbers; gradients reach what they should."""

import math

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.retrieval.bpr import BPRConfig
from recsys.retrieval.in_batch_softmax import InBatchSoftmaxConfig
from recsys.retrieval.loss import LossConfig, Triples
from recsys.retrieval.sampled_softmax import SampledSoftmaxConfig

ROWS, NEGATIVES, WIDTH, ITEMS = 5, 3, 4, 9


def triples() -> Triples:
    generator = torch.Generator().manual_seed(2)
    return Triples(
        users=torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True),
        positives=torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True),
        negatives=torch.randn(ROWS, NEGATIVES, WIDTH, generator=generator, requires_grad=True),
        user_ids=torch.arange(1, ROWS + 1),
        positive_ids=torch.tensor([1, 2, 1, 4, 5]),  # rows 0 and 2 share their item
        negative_ids=torch.randint(1, ITEMS, (ROWS, NEGATIVES), generator=generator),
        log_positive=torch.log(torch.arange(ITEMS) / 36),
        log_negative=torch.log(torch.arange(ITEMS) / 36),
    )


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bpr() -> None:
    t = triples()
    expected = sum(
        softplus(dot(t.users[b], t.negatives[b, n]) - dot(t.users[b], t.positives[b])) / NEGATIVES
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
            dot(t.users[b], t.negatives[b, n]) / 0.5 - (math.log(int(t.negative_ids[b, n]) / 36) if correct else 0)
            for n in range(NEGATIVES)
        ]
        expected += math.log(sum(math.exp(score) for score in [positive, *others])) - positive
    assert float(SampledSoftmaxConfig(temperature=0.5, correct=correct)(t).detach()) == pytest.approx(
        expected, rel=1e-5
    )


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


@pytest.mark.parametrize("loss", [BPRConfig(), SampledSoftmaxConfig(), InBatchSoftmaxConfig()])
def test_gradients_reach_all_vectors_that_are_used(loss: LossConfig) -> None:
    t = triples()
    loss(t).backward()
    used = [t.users, t.positives, *([t.negatives] if loss.needs_negatives else [])]
    assert all(part.grad is not None and bool((part.grad != 0).any()) for part in used)


@pytest.mark.parametrize("kind", [SampledSoftmaxConfig, InBatchSoftmaxConfig])
def test_impossible_temperatures_are_refused(kind: type[SampledSoftmaxConfig]) -> None:
    with pytest.raises(ConfigError, match=r"temperature=0\.0"):
        kind(temperature=0.0)
