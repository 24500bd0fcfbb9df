"""DCN V2: explicit crosses of bounded degree beside, or below, an MLP.

Source: Wang et al., DCN V2, WWW 2021, arXiv:2008.13535.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from recsys.core.specs import FeatureSpec
from recsys.models.cross import HEADS, Structure
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import CrossNetV2


@dataclass(frozen=True, kw_only=True)
class DCNv2Config:
    """Defaults: the best of BARS on criteo_x1, but with the width of criteo_x4 and the 400 units of frappe_x1."""

    embedding_dim: int = 16
    structure: Structure = Structure.PARALLEL
    num_cross_layers: int = 3
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the MLP's hidden layers
    batch_norm: bool = False  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.1  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_cross_layers", self.num_cross_layers, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        width = total_width(features, model="dcnv2") + num_dense
        return HEADS[self.structure](self, CrossNetV2(width, self.num_cross_layers), width, num_dense)
