"""TWIN with one table for search and sum, as DARE's authors compare with it: DARE with the two tables joined.

Source: Chang et al., TWIN: TWo-stage Interest Network, KDD 2023, arXiv:2302.02352, simplified as in the code of Feng et
al. (DARE, ICLR 2025, arXiv:2410.02604): one head without projections, time gaps in place of cross features, and search
and sum in one pass with the same scores, which is what TWIN is for, where its first stage is a service of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import embedded
from recsys.models.histories import split_columns
from recsys.models.target_attention import TargetAttentionConfig, TargetAttentionHead


@dataclass(frozen=True, kw_only=True)
class TWINConfig(TargetAttentionConfig):
    """Defaults: those of DARE's code."""

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide: targets with their histories unpooled, time gaps unpooled, others."""
        targets, gaps, others = split_columns(categorical, time_gaps=self.time_gaps, model="twin")
        return embedded([*targets, *gaps, *others], self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between vocabularies."""
        return TargetAttentionHead(self, features, num_dense, attention_suffix="", model="twin")
