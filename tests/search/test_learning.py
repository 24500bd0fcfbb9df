"""Estimators and updates of supernets against derivations of their own."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.specs import FeatureSpec, Pooling, Read
from recsys.search.choice import Piece
from recsys.search.dnis import SoftSelection, stepped
from recsys.search.draws import draw_by_row, rows_of_ids, step_generator
from recsys.search.masks import Mask
from recsys.search.matryoshka import Prefix
from recsys.search.optembed import OptEmbedConfig, RowsAndPrefixes, ThresholdLearning
from recsys.search.pep import SoftThreshold
from recsys.search.thresholds import step_function
from tests.search.world import SPACE


def slope_by_hand(x: float) -> float:
    """Of the long-tailed estimator: a triangle of height 2 that ends on a shelf of 0.4 up to 1."""
    if abs(x) > 1:
        return 0.0
    return max(2 - 4 * abs(x), 0.4)


def test_the_step_and_its_slope() -> None:
    x = torch.linspace(-1.5, 1.5, 61, requires_grad=True)
    stepped_x = step_function(x)
    assert stepped_x.tolist() == [float(value > 0) for value in x.tolist()]
    (gradient,) = torch.autograd.grad((stepped_x * 3).sum(), x)
    assert gradient.tolist() == pytest.approx([3 * slope_by_hand(value) for value in x.tolist()], abs=1e-5)


def test_thresholds_and_rows_get_the_gradient_of_the_gate() -> None:
    torch.manual_seed(0)
    mask = RowsAndPrefixes(sizes=[4], embedding_dim=2).eval()
    row = torch.tensor([[0.2, -0.1], [0.05, 0.02], [0.3, 0.4]], requires_grad=True)
    mask.threshold.fill_(0.15).requires_grad_()
    weights = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])
    (mask(torch.arange(3), [row]) * weights).sum().backward()
    margins = [0.15, -0.08, 0.55]  # L1 norm less threshold
    dots = [0.2 - 0.2, 0.15 - 0.02, 0.15 + 0.1]
    expected = [dot * slope_by_hand(margin) for dot, margin in zip(dots, margins, strict=True)]
    assert mask.threshold.grad is not None and row.grad is not None
    assert float(mask.threshold.grad) == pytest.approx(-sum(expected), rel=1e-5)
    # d/de of gate(|e|_1 - t) (w . e): the gate times w, and the gate's slope times sign(e) times (w . e).
    first = [1.0 + expected[0] * 1, 2.0 + expected[0] * -1]
    assert row.grad[0].tolist() == pytest.approx(first, rel=1e-5)
    assert row.grad[1].tolist() == pytest.approx([expected[1], expected[1]], rel=1e-5)


def test_while_training_all_prefixes_are_shown_equally_often() -> None:
    mask = RowsAndPrefixes(sizes=[1], embedding_dim=4).train()
    (mask.widths,) = draw_by_row(rows(8000), [4], step_generator(0, 1), rank=0, world_size=1)
    shown = mask(torch.zeros(8000, dtype=torch.int64), [torch.ones(8000, 4)])
    widths = shown.sum(1)
    assert (shown.diff(dim=1) <= 0).all()
    assert [float((widths == k).float().mean()) for k in range(1, 5)] == pytest.approx([0.25] * 4, abs=0.03)
    mask.eval()
    assert bool((mask(torch.zeros(3, dtype=torch.int64), [torch.ones(3, 4)]) == 1).all())


def test_widths_are_of_rows_of_ids_and_of_steps() -> None:
    first, again = (draw_by_row(rows(50), [8, 8], step_generator(3, 7), rank=0, world_size=1) for _ in range(2))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert first[0].tolist() != first[1].tolist()
    assert first[0].tolist() != draw_by_row(rows(50), [8, 8], step_generator(3, 8), rank=0, world_size=1)[0].tolist()
    padded = draw_by_row(rows(50).padded(60), [8], step_generator(3, 7), rank=0, world_size=1)[0]
    assert padded[:50].tolist() == first[0].tolist() and len(padded) == 60


def test_ids_have_the_row_that_they_are_of() -> None:
    lengths = {"user": [1, 0, 1], "tags": [2, 0, 3], "seen": [1, 1, 0]}
    jagged = KeyedJaggedTensor(
        keys=list(lengths),
        values=torch.zeros(9, dtype=torch.int64),
        lengths=torch.tensor(list(chain(*lengths.values()))),
    )
    batch = Batch(torch.empty(3, 0), jagged, torch.ones(3))
    user = FeatureSpec(name="user", embedding_dim=2, num_embeddings=4, max_length=1)
    tags = FeatureSpec(name="tags", embedding_dim=2, num_embeddings=4, also=(Read(name="seen", source="seen"),))
    assert rows_of_ids(user, batch).tolist() == [0, 1, 2], "a look-up for each row, also for one without an id"
    assert rows_of_ids(tags, batch).tolist() == [0, 0, 2, 2, 2, 0, 1]
    assert rows_of_ids(replace(user, pooling=Pooling.NONE), batch).tolist() == [0, 2]


def rows(count: int) -> Batch:
    empty = KeyedJaggedTensor(keys=["user"], values=torch.empty(0).long(), lengths=torch.zeros(count).long())
    return Batch(torch.empty(count, 0), empty, torch.ones(count))


def test_a_selection_steps_by_its_gradient_over_the_mean_size_of_its_block() -> None:
    alpha = torch.tensor([[0.5, 0.5], [0.99, 0.002], [0.3, 0.3]])
    gradient = torch.tensor([[3.0, -1.0], [-2e-6, 6e-6], [0.0, 0.0]])
    found = stepped(alpha, gradient, 0.01, 0.1)
    first = [0.5 - 0.01 * (1.5 + 0.1), 0.5 - 0.01 * (-0.5 + 0.1)]
    assert found[0].tolist() == pytest.approx(first, rel=1e-5)
    small = 1e-8 / 4e-6  # what is added to the mean size, seen beside a mean of 4e-6
    assert found[1].tolist() == pytest.approx([min(1.0, 0.99 - 0.01 * (-0.5 / (1 + small) + 0.1)), 0.0], rel=1e-5)
    assert found[2].tolist() == alpha[2].tolist()


def test_the_penalty_of_thresholds_is_that_of_the_paper() -> None:
    """alpha sum exp(-t), eq. 8, whose gradient is -alpha exp(-t): the lower a threshold, the harder it is pushed up."""
    learning = ThresholdLearning(SPACE, OptEmbedConfig(budget_mib=1.0, sparsity=0.5))
    thresholds = [torch.tensor([value], requires_grad=True) for value in (0.0, 0.7)]
    learning._buffers = thresholds

    class Ranks:
        world_size = 2

    penalty = learning.penalty(Ranks(), rows=1)  # type: ignore[arg-type]
    assert penalty is not None
    penalty.backward()
    found = [float(threshold.grad) for threshold in thresholds if threshold.grad is not None]
    assert found == pytest.approx([-0.25 * math.exp(-0.0), -0.25 * math.exp(-0.7)])


def test_drawn_prefixes_have_the_mean_gradient_of_all_prefixes() -> None:
    """What one width a step gives rows, over all widths that a step may draw, against sums over columns by hand."""
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    mask, total = Prefix(sizes=[1], embedding_dim=4).train(), torch.zeros(4)
    for halving in range(3):
        mask.share = 0.5**halving
        row = torch.ones(1, 4, requires_grad=True)
        (mask(torch.zeros(1, dtype=torch.int64), [row]) @ weights).sum().backward()
        assert row.grad is not None
        total += row.grad[0] / 3
    # Column 0 is shown by all three widths, 4, 2 and 1; column 1 by two of them, the others by one.
    assert total.tolist() == pytest.approx([1.0 * 3 / 3, -2.0 * 2 / 3, 3.0 / 3, 0.5 / 3])


def test_a_selection_that_learns_gives_rows_no_gradient() -> None:
    mask = SoftSelection(sizes=[2, 2], embedding_dim=2)
    row = torch.randn(3, 2, requires_grad=True)
    mask.alpha.requires_grad_()
    mask.learns = True
    (gradient,) = torch.autograd.grad(mask(torch.tensor([0, 1, 3]), [row]).sum(), [mask.alpha])
    torch.testing.assert_close(gradient, torch.stack([row[:2].sum(0), row[2]]).detach())
    mask.learns = False
    mask(torch.tensor([0, 1, 3]), [row]).sum().backward()
    assert row.grad is not None


def test_prefixes_are_shared_and_whole_when_not_training() -> None:
    mask = Prefix(sizes=[4], embedding_dim=6).train()
    mask.share = 0.25
    ones = torch.ones(2, 6)
    assert mask(torch.arange(2), [ones]).sum().item() == 2 * math.floor(0.25 * 6 + 0.5)
    assert mask.eval()(torch.arange(2), [ones]).sum().item() == 12


MASKS: dict[str, Callable[[], Mask]] = {
    "optembed": lambda: RowsAndPrefixes(sizes=[3, 3], embedding_dim=4),
    "dnis": lambda: SoftSelection(sizes=[3, 3], embedding_dim=4),
    "pep": lambda: SoftThreshold(sizes=[3, 3], embedding_dim=4, initial=-1.0),
    "matryoshka": lambda: Prefix(sizes=[3, 3], embedding_dim=4),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("training", [True, False])
def test_masks_only_shrink(name: str, training: bool) -> None:
    torch.manual_seed(0)
    mask = MASKS[name]().train(training)
    for _, buffer in mask.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer))
    if isinstance(mask, RowsAndPrefixes):
        mask.widths = torch.tensor([1, 4, 2, 3, 4, 2])
    ids, rows = torch.arange(6), torch.randn(6, 4)
    shown = mask(ids, [rows])
    assert (shown.abs() <= rows.abs()).all() and (shown * rows >= 0).all()
    mask.try_out((Piece(size=2, columns=(0, 1, 2)), Piece(size=4, columns=(1,))))
    torch.manual_seed(1)
    more = mask(ids, [rows])
    mask.try_out((Piece(size=2, columns=(0, 2)), Piece(size=1, columns=(1,)), Piece(size=3, columns=())))
    torch.manual_seed(1)
    less = mask(ids, [rows])
    assert (less.abs() <= more.abs()).all() and int((less != 0).sum()) < int((more != 0).sum())
    assert not less[3:].any()
