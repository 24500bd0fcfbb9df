"""`finalnet`: one stream or two of layers whose second half of units multiplies the first."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.finalnet import Blocks, FinalNetConfig
from tests.models.loops import affine, batch_norm, flat


def form(blocks: Blocks, *, field_gate: bool, batch_norm: bool = True) -> FinalNetConfig:
    return FinalNetConfig(
        embedding_dim=4,
        blocks=blocks,
        field_gate=field_gate,
        batch_norm=batch_norm,
        block1_units=[8, 6],
        block1_dropout=0.0,
        block2_units=[4],
        block2_dropout=0.0,
    )


FORMS: dict[str, ModelConfig] = {
    "finalnet_2b": form(Blocks.TWO, field_gate=True),
    "finalnet_2b_without_gate": form(Blocks.TWO, field_gate=False),
    "finalnet_2b_without_batch_norm": form(Blocks.TWO, field_gate=True, batch_norm=False),
    "finalnet_1b": form(Blocks.ONE, field_gate=False),
    "finalnet_1b_with_gate": form(Blocks.ONE, field_gate=True),
}


def stream(state: dict[str, Tensor], block: str, row: list[float]) -> float:
    """The logit of one block."""
    position = 0
    while f"{block}.layers.{position}.linear.weight" in state:
        hidden = affine(state, f"{block}.layers.{position}.linear", row)
        half = len(hidden) // 2
        row = hidden[:half] + [hidden[i] * hidden[half + i] for i in range(half)]
        position += 2  # the layer, its ReLU
        if f"{block}.layers.{position - 1}.running_mean" in state:
            row = batch_norm(state, f"{block}.layers.{position - 1}", row)
            position += 1
        row = [max(0.0, x) for x in row]
    return affine(state, f"{block}.output", row)[0]


def gated(state: dict[str, Tensor], vectors: list[list[float]]) -> list[list[float]]:
    """Each embedding times its gates: at each position, a linear function of all fields at that position."""
    found = []
    for vector, weights, bias in zip(vectors, state["gate.weight"].tolist(), state["gate.bias"].tolist(), strict=True):
        gates = [
            bias + sum(weight * other[position] for weight, other in zip(weights, vectors, strict=True))
            for position in range(len(vector))
        ]
        found.append([gate * value for gate, value in zip(gates, vector, strict=True)])
    return found


def logits(
    config: FinalNetConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]
) -> float:
    second = gated(state, embeddings) if config.field_gate else []
    logit = stream(state, "block1", flat(embeddings + second) + dense)
    if config.blocks is Blocks.TWO:
        logit = (logit + stream(state, "block2", flat(embeddings) + dense)) / 2
    return logit
