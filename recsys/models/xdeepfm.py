"""xDeepFM: linear part, compressed interaction network (CIN) and MLP over the same embeddings, logits added.

Source: Lian et al., KDD 2018, arXiv:1803.05170, in the form of FuxiCTR, which is behind the numbers of BARS: a bias for
every map, no activation, and every map is both read out and passed on. (The authors' code passes half of them on and
reads the other half.) Numeric columns enter the linear part and the MLP, not the CIN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from recsys.core.specs import FeatureSpec
from recsys.models.features import (
    check_at_least,
    check_dropout,
    check_units,
    embedded,
    equal_width,
    linear_weights,
    without_linear,
)
from recsys.models.layers import MLP, linear

PRODUCTS_AT_ONCE = 256
"""Products of two coordinates that a CIN layer forms at once for a row: bounds the memory that evaluation needs beside
the maps, and is enough for a matrix product."""


@dataclass(frozen=True, kw_only=True)
class XDeepFMConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    cin_units: list[int] = field(default_factory=lambda: [64])  # maps of each layer of the CIN
    # widths of the MLP's hidden layers; [] leaves the MLP out: BARS' model CIN
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.2  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.cin_units", self.cin_units)
        if self.hidden_units:
            check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + linear_weights(categorical)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        vectors = without_linear(features, model="xdeepfm")
        return XDeepFM(self, len(vectors), equal_width(vectors, model="xdeepfm"), num_dense)


class XDeepFM(nn.Module):
    """logit = sum of the ids' weights + w · dense + CIN(embeddings) + Linear(MLP([embeddings; dense]))."""

    has_dense: Final[bool]
    has_mlp: Final[bool]

    def __init__(self, config: XDeepFMConfig, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.has_mlp = len(config.hidden_units) > 0
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim
        self.width = num_fields * embedding_dim
        self.dense_weights = linear(num_dense, 1, bias=False) if num_dense > 0 else nn.Identity()
        self.cin = CIN(num_fields, config.cin_units)
        self.mlp: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        if self.has_mlp:
            width = self.width + num_dense
            self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
            self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim + F)."""
        inputs = embeddings[:, : self.width]
        logits: Tensor = self.cin(inputs.reshape(-1, self.num_fields, self.embedding_dim))
        logits = logits + embeddings[:, self.width :].sum(1)
        if self.has_dense:
            logits = logits + self.dense_weights(dense).squeeze(1)
            inputs = torch.cat([inputs, dense], 1)
        if self.has_mlp:
            logits = logits + self.output(self.mlp(inputs)).squeeze(1)
        return logits.float()


class CIN(nn.Module):
    """Weighted sums of products of coordinates: x^k_h = b^k_h + sum over i, j of W^k_hij (x^0_i * x^{k-1}_j).

    The logit is a linear layer over all maps x^k_h, each summed over its coordinates.
    Source: Lian et al., KDD 2018, arXiv:1803.05170, eq. 6-8.
    """

    def __init__(self, num_fields: int, units: Sequence[int]) -> None:
        super().__init__()
        self.units = list(units)
        below = [num_fields, *units]  # maps that each layer reads
        self.layers = nn.ModuleList(CINLayer(num_fields, *pair) for pair in zip(below, units[:-1], strict=False))
        self.last = CINLayer(num_fields, below[-2], units[-1])
        self.output = linear(sum(units), 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return logits (B,) from vectors (B, F, d)."""
        embedding_dim = vectors.shape[2]
        # Coordinates beside rows: every layer is then one matrix product over B * d rows.
        fields = vectors.transpose(1, 2).reshape(-1, vectors.shape[1])
        maps, logits = fields, torch.zeros_like(fields[:, 0])
        weights = self.output.weight.split(self.units, 1)
        for number, layer in enumerate(self.layers):
            maps = layer(fields, maps)
            logits = logits + apply_linear(maps, weights[number]).squeeze(1)
        logits = logits + self.last.weighed(fields, maps, weights[-1])
        return logits.view(-1, embedding_dim).sum(1) + self.output.bias


class CINLayer(nn.Module):
    """One layer of a CIN, for N = B * d rows that hold one coordinate each."""

    def __init__(self, num_fields: int, num_maps: int, num_units: int) -> None:
        super().__init__()
        self.num_fields = num_fields
        self.num_maps = num_maps
        self.step = max(1, PRODUCTS_AT_ONCE // num_maps)  # fields whose products are formed at once
        self.compress = linear(num_fields * num_maps, num_units)  # W_hij in column i * num_maps + j

    def forward(self, fields: Tensor, maps: Tensor) -> Tensor:
        """Return the maps (N, num_units) from fields (N, F) and the layer below's maps (N, num_maps)."""
        weight = self.compress.weight
        outputs: Tensor = self.compress.bias
        for start in range(0, self.num_fields, self.step):
            products = (fields[:, start : start + self.step].unsqueeze(2) * maps.unsqueeze(1)).flatten(1)
            part = weight[:, start * self.num_maps : (start + self.step) * self.num_maps]
            outputs = outputs + apply_linear(products, part).to(fields.dtype)
        return outputs

    def weighed(self, fields: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
        """Return `forward(fields, maps) @ weights[0]`, (N,), from weights (1, num_units).

        Nothing reads the last layer's maps but this sum, so W is summed first, and no product of two fields is formed.
        """
        summed = torch.matmul(weights, self.compress.weight).view(self.num_fields, self.num_maps)
        read = (apply_linear(maps, summed).to(fields.dtype) * fields).sum(1)
        return read + (weights[0] * self.compress.bias).sum()
