"""Logistic regression: one weight per id and per numeric column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn, zeros

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import check_linear, embedded, total_width
from recsys.models.layers import linear


@dataclass(frozen=True, kw_only=True)
class LRConfig:
    """Logistic regression has no hyper-parameter of its own."""

    embedding_dim: int = 1  # fixed: an id's embedding is its weight

    def __post_init__(self) -> None:
        if self.embedding_dim != 1:
            raise ConfigError(
                f"model.embedding_dim={self.embedding_dim}: model lr has one weight an id. Leave it at 1."
            )

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, one number wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        total_width(features, model="lr")
        check_linear(features, model="lr")
        return LR(num_dense)


class LR(nn.Module):
    """logit = bias + sum of the ids' weights + w · dense."""

    has_dense: Final[bool]

    def __init__(self, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.bias = nn.Parameter(zeros(1))
        self.dense_weights = linear(num_dense, 1, bias=False) if num_dense > 0 else nn.Identity()

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and the ids' weights (B, F)."""
        logits = embeddings.sum(1) + self.bias
        if self.has_dense:
            logits = logits + self.dense_weights(dense).squeeze(1)
        return logits.float()
