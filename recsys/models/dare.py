"""DARE: one embedding of an id says to which targets it matters, another what it means.

Source: Feng et al., Long-Sequence Recommendation Models Need Decoupled Embeddings, ICLR 2025, arXiv:2410.02604, without
its auxiliary loss, and with one logit where the authors' code has a softmax over two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, embedded
from recsys.models.histories import split_columns, without_extras
from recsys.models.target_attention import TargetAttentionConfig, TargetAttentionHead

ATTENTION_SUFFIX = "__attention"
"""Ends the name of a feature whose embedding says which events matter."""

REPRESENTATION_SUFFIX = "__representation"
"""Ends the name of a feature whose embedding says what target and events mean."""


@dataclass(frozen=True, kw_only=True)
class DAREConfig(TargetAttentionConfig):
    """Defaults: those of the authors' code, attention as wide as representation.

    The paper finds that a narrower attention, which makes the search faster, costs little.
    """

    attention_dim: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("model.attention_dim", self.attention_dim, 1)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Targets with histories and time gaps for attention, the same for representation, then all other columns.

        Each of the two is a feature, and so has embeddings, of its own: a plan may compress either alone.
        """
        targets, gaps, others = split_columns(categorical, time_gaps=self.time_gaps, model="dare")
        searched = [*(without_extras(spec) for spec in targets), *gaps]
        return [
            *embedded([spec.renamed(ATTENTION_SUFFIX) for spec in searched], self.attention_dim),
            *embedded([spec.renamed(REPRESENTATION_SUFFIX) for spec in [*targets, *gaps]], self.embedding_dim),
            *embedded(others, self.embedding_dim),
        ]

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between vocabularies."""
        return TargetAttentionHead(self, features, num_dense, attention_suffix=ATTENTION_SUFFIX, model="dare")
