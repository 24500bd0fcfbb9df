"""MaskNet: a block by hand, counts of BARS, what normalisation does."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.masknet import EmbeddingNorm, MaskBlock, MaskNetConfig, Structure
from tests.models.world import build, inputs, num_on_frappe, num_on_movielens, randomised


def test_counts_of_bars() -> None:
    # frappe_x1: embeddings; three blocks: mask 100-200-100 with biases, 100 x 50 without, layer norm 2 x 50; then
    # 150-400-400-400-1 with biases and without batch norm
    block = 100 * 200 + 200 + 200 * 100 + 100 + 100 * 50 + 100
    mlp = 150 * 400 + 400 + 2 * (400 * 400 + 400) + 401
    assert num_on_frappe(MaskNetConfig(embedding_dim=10)) == 53_890 + 3 * block + mlp == 571_691
    # movielenslatest_x1: three blocks in a row, 30-400-400-400-1; every mask is computed from the 30 embeddings' values
    serial = MaskNetConfig(embedding_dim=10, structure=Structure.SERIAL, mask_ratio=4.0, dropout=0.5)
    first = 30 * 120 + 120 + 120 * 30 + 30 + 30 * 400 + 800
    later = 30 * 1600 + 1600 + 1600 * 400 + 400 + 400 * 400 + 800
    assert num_on_movielens(serial) == 902_390 + first + 2 * later + 401 == 2_624_541


def test_block_by_hand() -> None:
    block = MaskBlock(1, 2, 2, MaskNetConfig(mask_ratio=0.5, dropout=0.0)).eval()
    with torch.no_grad():
        block.aggregation.weight.fill_(2.0)
        block.projection.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        block.projection.bias.copy_(torch.tensor([0.0, 3.0]))
        block.hidden.weight.copy_(torch.eye(2))
        block.norm.bias.copy_(torch.tensor([0.5, 0.5]))
    # row 1: unit 2, mask (2, 1), masked (6, 4): normalised (1, -1), shifted, ReLU
    # row -1: unit ReLU(-2) = 0, mask (0, 3), masked (0, 12): normalised (-1, 1)
    outputs = block(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]]))
    torch.testing.assert_close(outputs, torch.tensor([[1.5, 0.0], [0.0, 1.5]]), rtol=0, atol=1e-4)


def test_each_embedding_is_normalised_by_itself() -> None:
    norm = EmbeddingNorm(2, 2)
    with torch.no_grad():
        norm.bias[1] = 10.0
    normed = norm(torch.tensor([[1.0, 3.0, 50.0, -50.0]]))
    torch.testing.assert_close(normed, torch.tensor([[-1.0, 1.0, 11.0, 9.0]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("structure", Structure)
def test_masks_read_the_embeddings_as_they_are(structure: Structure) -> None:
    """Normalised, a row and its double are the same; the masks, through their biases, tell the two apart."""
    config = MaskNetConfig(embedding_dim=8, structure=structure, hidden_units=[8], embedding_norm=True, dropout=0.0)
    head = randomised(build(config, 0))
    dense, rows, *_ = inputs(config, 0, num_rows=16)
    normed = head.get_submodule("norm")
    torch.testing.assert_close(normed(rows), normed(2 * rows), rtol=0, atol=1e-3)
    assert (head(dense, rows) - head(dense, 2 * rows)).abs().max().item() > 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 0.0}, r"model\.mask_ratio=0\.0"),
        ({"num_blocks": 0}, r"model\.num_blocks=0"),
        ({"block_units": 1}, r"model\.block_units=1: must be 2"),
        ({"structure": Structure.SERIAL, "hidden_units": [4, 1]}, r"model\.hidden_units=\[4, 1\]: with .*serial"),
        ({"embedding_norm": True, "embedding_dim": 1}, r"embedding_dim .*=1: must be 2"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskNetConfig(**options)  # type: ignore[arg-type]
