"""Blocks that several models share: ATen operators only, scriptable, traceable, safe under bf16 autocast."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.models.activations import Activation


def linear(input_dim: int, output_dim: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier-normal weights and zero bias, as in FuxiCTR (behind every BARS number)."""
    layer = nn.Linear(input_dim, output_dim, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Dropout(nn.Module):
    """Zero each value with probability `rate` while training, and scale the rest up to keep the mean.

    `torch.nn.Dropout` draws one random number a value, which on a CPU takes longer than the layer's matrix product.
    This draws 16 random bits a value, four values a draw: a quarter of the time. The rate is rounded to 1 / 65,536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = round(rate * 65536)
        self.scale = 65536 / (65536 - self.threshold)
        self.lowest = -(2**63)  # an attribute: TorchScript takes the expression for a float

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the shape and type of `inputs`."""
        if not self.training:
            return inputs
        draws = torch.empty((inputs.numel() + 3) // 4, dtype=torch.int64, device=inputs.device)
        bits = draws.random_(self.lowest, None).view(torch.int16)[: inputs.numel()].view(inputs.shape)
        return inputs * ((bits >= self.threshold - 32768).to(inputs.dtype) * self.scale)


class MLP(nn.Module):
    """Hidden layers, each Linear, BatchNorm (if asked for), activation, Dropout in this order.

    Source: FuxiCTR `MLP_Block`, the order behind the BARS benchmark.
    """

    def __init__(
        self,
        input_dim: int,
        units: Sequence[int],
        *,
        batch_norm: bool,
        dropout: float,
        activation: Activation = Activation.RELU,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in zip([input_dim, *units], units, strict=False):
            layers.append(linear(width_in, width_out))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width_out))
            layers.append(activation.of_width(width_out))
            if dropout > 0:
                layers.append(Dropout(dropout))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, input_dim) to (B, units[-1])."""
        outputs: Tensor = self.layers(inputs)
        return outputs


class CrossNetV2(nn.Module):
    """Full-rank cross layers: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l.

    Source: Wang et al., DCN V2, WWW 2021, arXiv:2008.13535, eq. 1.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(width, width) for _ in range(num_layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map x_0 of shape (B, width) to x_L of the same shape and type."""
        crossed = inputs
        for layer in self.layers:
            # Under autocast the layer answers in bfloat16. Converted once, product and sum keep the type of `inputs`;
            # operators of two types at once are slow on a CPU.
            crossed = crossed + inputs * layer(crossed).to(inputs.dtype)
        return crossed


class NumericVectors(nn.Module):
    """Makes each numeric column a field like the others: its value times a learned vector.

    The vectors start at N(0, std²), by default as small as rows of tables do: products of two numeric columns would
    else outweigh all others at first.
    Source: Rendle, Factorization Machines, ICDM 2010, eq. 1, where x_j v_j enters the pairs.
    """

    def __init__(self, num_dense: int, embedding_dim: int, *, std: float = 1e-4) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(num_dense, embedding_dim) * std) if num_dense > 0 else None

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Append to embeddings (B, W) the fields of dense (B, n): (B, W + n * embedding_dim)."""
        if self.vectors is None:
            return embeddings
        return torch.cat([embeddings, (dense.unsqueeze(2) * self.vectors).flatten(1)], 1)


def pairwise_sum(embeddings: Tensor) -> Tensor:
    """Sum of the dot products of all pairs of features, in time linear in the number of features.

    Args:
        embeddings: float32 (B, F, d).
    Returns:
        sum over i < j of <e_i, e_j>, float32 (B,).
    Source: Rendle, Factorization Machines, ICDM 2010, lemma 3.1.
    """
    of_sum = embeddings.sum(1).square().sum(1)
    return 0.5 * (of_sum - embeddings.square().sum([1, 2]))


class PairwiseDots(nn.Module):
    """The dot product of each pair of F vectors: (B, F, d) to (B, F (F - 1) / 2), pairs (0, 1), (0, 2), …, (F-2, F-1).

    Source: Naumov et al., DLRM, arXiv:1906.00091.
    """

    pairs: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("pairs", first * num_vectors + second, persistent=False)
        self.num_pairs = self.pairs.numel()

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the dot products, (B, F (F - 1) / 2)."""
        # index_select: on a CPU, with its gradient, half the cost of indexing and a tenth of slices or of products.
        return torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
