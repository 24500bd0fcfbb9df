"""`finalmlp`: two gated MLPs and the bilinear form that joins them."""

import math

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.finalmlp import FinalMLPConfig
from tests.models.loops import affine, flat, perceptron, scaled_rows


def form(**options: bool | list[str]) -> FinalMLPConfig:
    return FinalMLPConfig(
        embedding_dim=4,
        stream1_units=[8, 6],
        stream1_dropout=0.0,
        stream2_units=[4],
        stream2_dropout=0.0,
        num_heads=2,
        gate_units=[5],
        **options,  # type: ignore[arg-type]
    )


FORMS: dict[str, ModelConfig] = {
    "finalmlp": form(),
    "finalmlp_with_contexts": form(gate1_context=["f0"], gate2_context=["f2", "f0"], batch_norm=False),
    "finalmlp_with_one_context": form(gate2_context=["f1"]),
    "finalmlp_without_gates": form(gates=False),
}


def gated(state: dict[str, Tensor], gate: str, context: list[float], inputs: list[float]) -> list[float]:
    learned = state.get(f"{gate}.context.vector")
    read = context if learned is None else learned[0].tolist()
    opening = affine(state, f"{gate}.output", perceptron(state, f"{gate}.hidden", read))
    return [2 / (1 + math.exp(-x)) * value for x, value in zip(opening, inputs, strict=True)]


def fusion(state: dict[str, Tensor], first: list[float], second: list[float]) -> float:
    total = affine(state, "fusion.linear1", first)[0] + affine(state, "fusion.linear2", second)[0]
    for head, matrix in enumerate(state["fusion.weight"].tolist()):
        for i, row in enumerate(matrix):
            for j, weight in enumerate(row):
                total += first[head * len(matrix) + i] * weight * second[head * len(row) + j]
    return total


def logits(
    config: FinalMLPConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]
) -> float:
    num_fields = len(embeddings) - len(config.gate1_context) - len(config.gate2_context)
    end1 = num_fields + len(config.gate1_context)
    inputs = flat(embeddings[:num_fields] + scaled_rows(state, "numeric.vectors", dense))
    first, second = inputs, inputs
    if config.gates:
        first = gated(state, "gate1", flat(embeddings[num_fields:end1]), inputs)
        second = gated(state, "gate2", flat(embeddings[end1:]), inputs)
    return fusion(state, perceptron(state, "mlp1", first), perceptron(state, "mlp2", second))
