"""The mixture of widths: its parts, its gradient, and the order in which it buys columns."""

import pytest
import torch

from recsys.search.autodim import WidthMixture, candidate_widths, probable_columns
from tests.search.world import FEATURES, SPACE


def test_candidates_are_powers_of_two_and_the_full_width() -> None:
    assert candidate_widths(8) == [1, 2, 4, 8]
    assert candidate_widths(10) == [1, 2, 4, 8, 10]
    assert candidate_widths(1) == [1]


def trained_mixture() -> WidthMixture:
    torch.manual_seed(0)
    mask = WidthMixture(sizes=[3, 3], embedding_dim=4)
    mask.alpha.copy_(torch.randn(2, 3))
    for _ in range(50):
        mask(torch.arange(6), [torch.randn(6, 4) * 3 + 1])
    return mask


def by_hand(mask: WidthMixture, ids: torch.Tensor, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """sum_n p_n (T_n e[:w_n] - mean_n) / sqrt(var_n + eps), row by row."""
    found = []
    for number, row in zip(ids.tolist(), rows, strict=True):
        block = int(number >= 3)
        scores = torch.exp(mask.alpha[block] + noise[block])
        total = torch.zeros(4)
        for place, width in enumerate(mask.widths):
            transform, norm = mask.transforms[place], mask.norms[place]
            assert isinstance(transform, torch.nn.Linear) and isinstance(norm, torch.nn.BatchNorm1d)
            assert norm.running_mean is not None and norm.running_var is not None
            wide = transform.weight @ row[:width] + transform.bias
            total = total + scores[place] / scores.sum() * (wide - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
        found.append(total)
    return torch.stack(found)


def test_the_mixture_and_the_gradient_of_its_weights() -> None:
    mask = trained_mixture().eval()
    ids, rows, weights = torch.arange(6), torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    torch.testing.assert_close(mask(ids, [rows]), by_hand(mask, ids, rows, torch.zeros(2, 3)))
    mask.alpha.requires_grad_()
    mask.learns = True
    torch.manual_seed(5)
    (mask(ids, [rows]) * weights).sum().backward()
    assert rows.grad is None, "tables would move while the structure learns"
    found = mask.alpha.grad
    torch.manual_seed(5)
    noise = -(-torch.rand(2, 3).clamp(1e-10, 1 - 1e-7).log()).log()
    mask.alpha.grad = None
    (by_hand(mask, ids, rows.detach(), noise) * weights).sum().backward()
    torch.testing.assert_close(found, mask.alpha.grad)


def test_while_training_each_candidate_is_normalised_over_the_batch() -> None:
    torch.manual_seed(0)
    mask = WidthMixture(sizes=[50], embedding_dim=4).train()
    mask.alpha.copy_(torch.tensor([[0.0, 60.0, 0.0]]))  # one candidate has all the weight
    shown = mask(torch.arange(50), [torch.randn(50, 4) * 7 + 3])
    torch.testing.assert_close(shown.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(shown.var(0, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)
    assert torch.isfinite(mask(torch.arange(1), [torch.randn(1, 4)])).all()
    assert mask(torch.arange(0), [torch.randn(0, 4)]).shape == (0, 4)


def test_cold_mixtures_take_one_candidate() -> None:
    torch.manual_seed(0)
    mask = WidthMixture(sizes=[1], embedding_dim=4).train()
    mask.temperature = 0.01
    drawn = torch.stack([mask._weights()[0] for _ in range(300)])
    assert float((drawn.max(1).values > 0.99).float().mean()) > 0.9
    assert drawn.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.1)


def test_columns_are_bought_by_the_probability_of_the_width() -> None:
    mixtures = []
    for feature, blocks in zip(FEATURES, SPACE.blocks, strict=True):
        mixtures.append(WidthMixture([block.size for block in blocks], feature.embedding_dim))
    mixtures[1].alpha[0] = torch.tensor([0.0, 0.0, 0.0, 9.0])
    order = probable_columns(SPACE, mixtures)
    assert (
        len(order)
        == len(set(order))
        == sum(len(b) * f.embedding_dim for f, b in zip(FEATURES, SPACE.blocks, strict=True))
    )
    places = {column: place for place, column in enumerate(order)}
    for column in order:  # no column before the one to its left
        if column.column:
            assert places[type(column)(column.feature, column.block, column.column - 1)] < places[column]
    wide = [places[type(order[0])(1, 0, column)] for column in range(8)]
    assert all(places[type(order[0])(0, 0, 1)] > place for place in wide)
