"""FinalMLP: two MLPs over differently gated features, their outputs joined by a bilinear form with heads.

Source: Mao et al., AAAI 2023, arXiv:2304.00902. A numeric column is a field like the others, its value times a learned
vector, as in FuxiCTR: so gates open each of its values apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import MLP, NumericVectors, linear


@dataclass(frozen=True, kw_only=True)
class FinalMLPConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4, and for the contexts.

    Those are names of columns: BARS takes `gate1_context=[user]` and `gate2_context=[item]` there, and none on
    movielenslatest_x1. Only categorical columns can be context.
    """

    embedding_dim: int = 16
    stream1_units: list[int] = field(default_factory=lambda: [400])  # widths of the first MLP's layers
    stream1_dropout: float = 0.4  # share of the first MLP's units that a training step drops
    stream2_units: list[int] = field(default_factory=lambda: [100])  # widths of the second MLP's layers
    stream2_dropout: float = 0.4  # share of the second MLP's units that a training step drops
    batch_norm: bool = True  # batch normalisation before each ReLU of both MLPs
    num_heads: int = 5  # both outputs are cut into as many parts, multiplied part by part; divides both last widths
    gates: bool = True  # whether features are gated; if not, both MLPs read the same
    gate_units: list[int] = field(default_factory=lambda: [400])  # widths of the hidden layers of each gate's network
    gate1_context: list[str] = field(default_factory=list)  # columns that gate the first stream; none: a learned vector
    gate2_context: list[str] = field(default_factory=list)  # columns that gate the second stream

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_heads", self.num_heads, 1)
        for stream, units, dropout in self._streams():
            check_units(f"model.{stream}_units", units)
            check_dropout(f"model.{stream}_dropout", dropout)
            if units[-1] % self.num_heads:
                raise ConfigError(
                    f"model.num_heads={self.num_heads} does not divide {units[-1]}, the last of model.{stream}_units. "
                    "Heads are equal parts of both last layers; set a number that divides both."
                )
        check_units("model.gate_units", self.gate_units)
        for gate, context in self._contexts().items():
            if len(set(context)) < len(context) or (context and not self.gates):
                raise ConfigError(
                    f"model.{gate}_context={context} with model.gates={self.gates}: name each column once, and none "
                    "without gates."
                )

    def _streams(self) -> list[tuple[str, list[int], float]]:
        return [
            ("stream1", self.stream1_units, self.stream1_dropout),
            ("stream2", self.stream2_units, self.stream2_dropout),
        ]

    def _contexts(self) -> dict[str, list[str]]:
        return {"gate1": self.gate1_context, "gate2": self.gate2_context}

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, then each gate's context columns once more: gates have embeddings of their own.

        Raises:
            ConfigError: a context is no categorical column.
        """
        features = embedded(categorical, self.embedding_dim)
        columns = {output.name: output for spec in features for output in spec.outputs}
        contexts = []
        for gate, context in self._contexts().items():
            for name in context:
                if name not in columns:
                    raise ConfigError(
                        f"model.{gate}_context={context}: {name!r} is no categorical column of the dataset. "
                        f"Choose among {list(columns)}, or give []."
                    )
                contexts.append(replace(columns[name], name=f"{name}__{gate}"))
        return [*features, *contexts]

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        contexts = [f"{name}__{gate}" for gate, context in self._contexts().items() for name in context]
        num_fields = max(0, len(features) - len(contexts))
        width = total_width(features[:num_fields], model="finalmlp")
        if [spec.name for spec in features[num_fields:]] != contexts:
            raise ConfigError(
                f"model finalmlp got features {[spec.name for spec in features]}: it reads every column first, then "
                f"{contexts}, which gate them. Keep the order of `FinalMLPConfig.features`."
            )
        of_gate1 = features[num_fields : num_fields + len(self.gate1_context)]
        end1 = width + sum(spec.embedding_dim for spec in of_gate1)
        return FinalMLP(self, (width, end1, sum(spec.embedding_dim for spec in features)), num_dense)


class LearnedContext(nn.Module):
    """A vector of its own as context, the same for every row.

    FuxiCTR begins at zero, where ReLU passes no gradient: its gate learns by its last bias alone, which is all that it
    can say, being the same for every row. This begins as an embedding does, so that no weight is dead. On the Criteo
    sample zero is better by .0013 of validation AUC, in seven pairs of eight.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(1, width) * 1e-4)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (1, width)."""
        return self.vector


class EmbeddedContext(nn.Module):
    """Columns [start, end) of the embeddings as context."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start = start
        self.end = end

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (B, end - start)."""
        return embeddings[:, self.start : self.end]


class FeatureGate(nn.Module):
    """Features times 2 sigmoid(MLP(context)), value by value."""

    def __init__(self, config: FinalMLPConfig, start: int, end: int, width: int) -> None:
        super().__init__()
        self.context = EmbeddedContext(start, end) if end > start else LearnedContext(config.embedding_dim)
        context_width = end - start if end > start else config.embedding_dim
        self.hidden = MLP(context_width, config.gate_units, batch_norm=False, dropout=0.0)
        self.output = linear(config.gate_units[-1], width)

    def forward(self, inputs: Tensor, embeddings: Tensor) -> Tensor:
        """Map features (B, width) and all embeddings to gated features (B, width)."""
        opening = 2 * torch.sigmoid(self.output(self.hidden(self.context(embeddings))))
        return inputs * opening.to(inputs.dtype)


class BilinearFusion(nn.Module):
    """w_1 · o_1 + b_1 + w_2 · o_2 + b_2 + sum over heads h of o_1h^T W_h o_2h."""

    def __init__(self, width1: int, width2: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.width1, self.width2 = width1 // num_heads, width2 // num_heads
        self.linear1 = linear(width1, 1)
        self.linear2 = linear(width2, 1)
        # As in FuxiCTR: Xavier-normal for one output that reads all products.
        scale = (2 / (num_heads * self.width1 * self.width2 + 1)) ** 0.5
        self.weight = nn.Parameter(torch.randn(num_heads, self.width1, self.width2) * scale)

    def forward(self, outputs1: Tensor, outputs2: Tensor) -> Tensor:
        """Map the streams' outputs (B, width1) and (B, width2) to logits, float32 (B,)."""
        heads1 = outputs1.view(-1, self.num_heads, self.width1).transpose(0, 1)
        heads2 = outputs2.view(-1, self.num_heads, self.width2).transpose(0, 1)
        products = torch.bmm(heads1, self.weight).float() * heads2.float()
        first_order = self.linear1(outputs1) + self.linear2(outputs2)
        logits: Tensor = first_order.squeeze(1).float() + products.sum([0, 2])
        return logits


class FinalMLP(nn.Module):
    """logit = fusion(MLP_1(gate_1(x)), MLP_2(gate_2(x))) with x = [embeddings; fields of dense]."""

    has_gates: Final[bool]

    def __init__(self, config: FinalMLPConfig, ends: tuple[int, int, int], num_dense: int) -> None:
        super().__init__()
        self.has_gates = config.gates
        self.width, end1, end2 = ends  # of the columns' embeddings, of those of gate 1, of those of gate 2
        # Xavier-normal, as in FuxiCTR, not as small as rows: all inputs of the MLPs would be that small, and batch
        # norm's running variances, which start at 1, take over a hundred steps down to theirs, about 1e-5. Until then
        # evaluation divides by too much, and all logits are nearly alike.
        self.numeric = NumericVectors(num_dense, config.embedding_dim, std=(2 / (1 + config.embedding_dim)) ** 0.5)
        width = self.width + num_dense * config.embedding_dim
        self.gate1 = FeatureGate(config, self.width, end1, width) if config.gates else nn.Identity()
        self.gate2 = FeatureGate(config, end1, end2, width) if config.gates else nn.Identity()
        normed = config.batch_norm
        self.mlp1 = MLP(width, config.stream1_units, batch_norm=normed, dropout=config.stream1_dropout)
        self.mlp2 = MLP(width, config.stream2_units, batch_norm=normed, dropout=config.stream2_dropout)
        self.fusion = BilinearFusion(config.stream1_units[-1], config.stream2_units[-1], config.num_heads)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = self.numeric(dense, embeddings[:, : self.width])
        inputs1, inputs2 = inputs, inputs
        if self.has_gates:
            inputs1, inputs2 = self.gate1(inputs, embeddings), self.gate2(inputs, embeddings)
        logits: Tensor = self.fusion(self.mlp1(inputs1), self.mlp2(inputs2))
        return logits
