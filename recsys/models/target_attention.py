"""What DARE and TWIN share: the events that match a target best are weighed by their match and summed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec, Pooling
from recsys.models.activations import Activation
from recsys.models.attention_pooling import (
    HistoryReader,
    TargetAttention,
    best_events,
    rows_at,
    unpadded,
    weighted_sum,
)
from recsys.models.features import check_at_least, check_dropout, check_units, total_width
from recsys.models.histories import locate_histories
from recsys.models.layers import MLP, linear


@dataclass(frozen=True, kw_only=True)
class TargetAttentionConfig:
    """Fields of both; defaults are those of DARE's code."""

    embedding_dim: int = 16
    time_gaps: str = "hist_gap"  # column of the time between each event and now; "": events are weighed without
    top_k: int = 20  # events of highest score that are summed
    hidden_units: list[int] = field(default_factory=lambda: [200, 80])  # widths of the MLP's hidden layers
    dropout: float = 0.0  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.top_k", self.top_k, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)


class TargetAttentionHead(nn.Module):
    """logit = Linear(MLP(BatchNorm([embeddings; u; q * u; u_t; dense]))).

    u and u_t sum the best events' embeddings and those of their time gaps. Targets have no time gap: q * u has no part
    for it. The embeddings that the attention alone reads are left out.
    """

    has_dense: Final[bool]

    def __init__(
        self,
        config: TargetAttentionConfig,
        features: Sequence[FeatureSpec],
        num_dense: int,
        *,
        attention_suffix: str,
        model: str,
    ) -> None:
        super().__init__()
        total_width(features, model=model)
        histories = locate_histories(features, time_gaps=config.time_gaps, model=model)
        searched = [history for history in histories if history.name.endswith(attention_suffix)]
        summed = [history for history in histories if not attention_suffix or history not in searched]
        pooled = sum(spec.embedding_dim for spec in features if spec.pooling is not Pooling.NONE)
        self.top_k = config.top_k
        self.has_dense = num_dense > 0
        self.searched, self.summed = HistoryReader(searched), HistoryReader(summed)
        self.attention = TargetAttention(self.searched.query_width, self.searched.gap_width)
        self.first_read = self.searched.query_width if attention_suffix else 0
        width = pooled - self.first_read + 2 * self.summed.query_width + self.summed.gap_width + num_dense
        self.norm = nn.BatchNorm1d(width)
        self.mlp = MLP(
            width, config.hidden_units, batch_norm=False, dropout=config.dropout, activation=Activation.PRELU
        )
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        """Return logits, float32 (B,).

        Args:
            dense: (B, num_dense).
            embeddings: (B, sum of widths), what is pooled; what the attention alone reads comes first.
            sequences: (B, L, d) each: histories and time gaps, in the order of the features.
            lengths: int64 (B,) each; one history's columns have the same.
        """
        weights, places = self.search(embeddings, sequences, lengths[0])
        found = rows_at(places, self.summed.steps(sequences) + self.summed.gaps(sequences), self.top_k)
        interest = weighted_sum(weights, found)
        product = torch.cat(self.summed.targets(embeddings), 1) * interest[:, : self.summed.query_width]
        inputs = [embeddings[:, self.first_read :], interest, product]
        if self.has_dense:
            inputs.append(dense)
        logits: Tensor = self.output(self.mlp(self.norm(torch.cat(inputs, 1))))
        return logits.squeeze(1).float()

    def search(self, embeddings: Tensor, sequences: list[Tensor], lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, top_k) and places of the best events; see `best_events`."""
        steps = self.searched.steps(sequences)
        scores = self.attention(self.searched.targets(embeddings), steps, self.searched.gaps(sequences))
        return best_events(scores, unpadded(steps[0], lengths), top_k=self.top_k)

    def event_weights(self, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        """What each event counts, float32 (B, L), 0 for all but the best; arguments as of `forward`."""
        weights, places = self.search(embeddings, sequences, lengths[0])
        steps = sequences[0]
        all_events = weights.new_zeros(steps.size(0) * steps.size(1))
        return all_events.index_add(0, places, weights.flatten()).view(steps.size(0), steps.size(1))
