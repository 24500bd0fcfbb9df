"""DIN: the events of a history are weighed by a network that sees event and target, then summed.

Source: Zhou et al., Deep Interest Network, KDD 2018, arXiv:1706.06978, in the form of FuxiCTR, which is behind the
numbers of BARS. Its options are the paper's and the authors' forms: the paper has no softmax and no product of target
and interest; the authors' code has both, and divides scores by the root of the width, which neither others do.
The paper's mini-batch-aware regularisation is `batch_regularizer`, which training adds to the loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Pooling
from recsys.models.activations import Activation
from recsys.models.attention_pooling import ActivationUnit, HistoryReader, softmax_over, unpadded, weighted_sum
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.histories import History, locate_histories, split_columns
from recsys.models.layers import MLP, linear


@dataclass(frozen=True, kw_only=True)
class DINConfig:
    """Defaults: the best of BARS on amazonelectronics_x1, save for the width, which is 64 there.

    Its best on taobaoad_x1: width 32, relu everywhere, no softmax, attention_dropout 0.4, hidden units 512, 256, 128
    without batch normalisation and dropout.
    """

    embedding_dim: int = 16
    time_gaps: str = ""  # column of the time between each event and now, which the unit reads too; "": none
    attention_units: list[int] = field(default_factory=lambda: [512, 256])  # hidden layers of the unit that weighs
    attention_activation: Activation = Activation.DICE
    attention_dropout: float = 0.1  # share of the unit's hidden units that a training step drops
    softmax: bool = True  # an event's weight is its share of all, not its score
    product: bool = False  # the MLP also reads target times interest, number by number
    hidden_units: list[int] = field(default_factory=lambda: [1024, 512, 256])  # widths of the MLP's hidden layers
    activation: Activation = Activation.DICE
    batch_norm: bool = True  # batch normalisation before each activation of the MLP
    dropout: float = 0.1  # share of the MLP's hidden units that a training step drops
    # lambda of L2 on the embeddings of a batch's ids, each divided by its look-ups in training; see `BatchRegularizer`
    batch_regularizer: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.attention_units", self.attention_units)
        check_dropout("model.attention_dropout", self.attention_dropout)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)
        if not 0 <= self.batch_regularizer < math.inf:
            raise ConfigError(f"model.batch_regularizer={self.batch_regularizer}: must be 0 or more, and finite.")

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide: targets with their histories unpooled, time gaps unpooled, others."""
        columns = split_columns(categorical, time_gaps=self.time_gaps, model="din")
        return embedded([*columns.targets, *columns.gaps, *columns.others], self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between vocabularies."""
        total_width(features, model="din")
        histories = locate_histories(features, time_gaps=self.time_gaps, model="din")
        pooled = sum(spec.embedding_dim for spec in features if spec.pooling is not Pooling.NONE)
        return DIN(self, histories, pooled, num_dense)


class DIN(nn.Module):
    """logit = Linear(MLP([embeddings; u; q * u; dense])), u = sum over events of weight times embedding."""

    has_softmax: Final[bool]
    has_product: Final[bool]
    has_dense: Final[bool]

    def __init__(self, config: DINConfig, histories: Sequence[History], pooled_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_softmax, self.has_product, self.has_dense = config.softmax, config.product, num_dense > 0
        self.reader = HistoryReader(histories)
        self.unit = ActivationUnit(
            self.reader.query_width,
            self.reader.gap_width,
            units=config.attention_units,
            activation=config.attention_activation,
            dropout=config.attention_dropout,
        )
        width = pooled_width + self.reader.query_width * (1 + int(config.product)) + num_dense
        self.mlp = MLP(
            width,
            config.hidden_units,
            batch_norm=config.batch_norm,
            dropout=config.dropout,
            activation=config.activation,
        )
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        """Return logits, float32 (B,).

        Args:
            dense: (B, num_dense).
            embeddings: (B, sum of widths), what is pooled.
            sequences: (B, L, d) each: histories and time gaps, in the order of the features.
            lengths: int64 (B,) each; one history's columns have the same.
        """
        interest = weighted_sum(self.event_weights(embeddings, sequences, lengths), self.reader.steps(sequences))
        inputs = [embeddings, interest]
        if self.has_product:
            inputs.append(torch.cat(self.reader.targets(embeddings), 1) * interest)
        if self.has_dense:
            inputs.append(dense)
        logits: Tensor = self.output(self.mlp(torch.cat(inputs, 1)))
        return logits.squeeze(1).float()

    def event_weights(self, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        """What each event counts, float32 (B, L), 0 where none is; arguments as of `forward`."""
        targets, steps = self.reader.targets(embeddings), self.reader.steps(sequences)
        there = unpadded(steps[0], lengths[0])
        scores = self.unit(targets, steps, self.reader.gaps(sequences), there)
        return softmax_over(scores, there) if self.has_softmax else scores.float()
