"""`pq` and `opq`: product quantization of trained tables, without and with a learned rotation of each.

A row is cut into P parts; each part is replaced by the nearest of K centroids, and only their numbers are stored.
Sources: Jegou, Douze & Schmid, "Product quantization for nearest neighbor search", TPAMI 2011; Ge, He, Ke & Sun,
"Optimized product quantization", CVPR 2013.

Bytes of a feature of n ids and width d: n * P * ceil(log2 K) / 8 for codes, 4 * K * d for centroids, and with a
rotation 4 * d * d. The floor is one bit an id and one row: 32 * d times less than full tables, at most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.allocation import Option, allocate
from recsys.embeddings.codes import codes_parts, codes_plan
from recsys.embeddings.combiners import Concat
from recsys.embeddings.frequency import id_weights, share_of_ids
from recsys.embeddings.method import full_table, num_ids
from recsys.embeddings.post_training import EachAloneConfig
from recsys.ops.product_quantization import learn, nearest_codes

MAX_CENTROIDS = 256


class Rotate(Combiner):
    """Parts side by side, turned back: rows of centroids live in the rotated space."""

    rotation: Tensor

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.eye(embedding_dim))

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return concat(rows) @ rotation.T, float32, shape (N, embedding_dim)."""
        return torch.cat(rows, dim=-1) @ self.rotation.t()


@dataclass(frozen=True, kw_only=True)
class PqConfig(EachAloneConfig):
    """Codes and centroids per feature; how many of each follows from the budget and how look-ups spread over ids."""

    rotate: bool = False

    @property
    def label(self) -> str:
        """`opq` with a rotation."""
        return "opq" if self.rotate else super().label

    def serve(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Give each feature the parts and centroids that leave least expected error in all."""
        return TablePlan.merge([option.plan for option in self.share_out(features, budget_bytes=budget_bytes)])

    def share_out(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> list[Option]:
        """How each feature is served, with the share of a look-up's squared length that this is expected to lose."""
        options = [_options(feature, self.rotate, self.init) for feature in features]
        chosen = allocate(options, budget_bytes)
        return [choices[number] for choices, number in zip(options, chosen, strict=True)]

    def compress_one(self, served: TablePlan, table: Tensor, *, generator: torch.Generator) -> EmbeddingParts:
        """Learn centroids and codes."""
        (entry,) = served.features
        quantizer = learn(
            table,
            num_parts=len(entry.tables),
            num_centroids=entry.remap.params["num_centroids"],
            weights=id_weights(entry.feature),
            rotate=entry.combiner == _rotation(entry.feature),
            generator=generator,
        )
        parts = codes_parts(served, nearest_codes(table, quantizer), quantizer.codebook)
        combiner = parts.combiners[entry.feature.name]
        if isinstance(combiner, Rotate):
            combiner.rotation.copy_(quantizer.rotation)
        return parts


def _rotation(feature: FeatureSpec) -> Component:
    return Component.of(Rotate, embedding_dim=feature.embedding_dim)


@cache
def _options(feature: FeatureSpec, rotate: bool, init: Init) -> list[Option]:
    """Every way to serve a feature: K centroids of P parts, or its full table."""
    full = full_table(feature, init)
    size, width = num_ids(feature), feature.embedding_dim
    options = [Option(plan=full, num_bytes=full.num_bytes, loss=0.0)]
    for num_parts in [parts for parts in range(1, width + 1) if width % parts == 0]:
        # One part has nothing that a rotation could balance.
        combiner = _rotation(feature) if rotate and num_parts > 1 else Component.of(Concat)
        for num_centroids in [2**k for k in range(MAX_CENTROIDS.bit_length()) if 2**k <= size]:
            plan = codes_plan(feature, num_parts=num_parts, num_centroids=num_centroids, combiner=combiner)
            loss = expected_loss(feature, num_parts=num_parts, num_centroids=num_centroids)
            options.append(Option(plan=plan, num_bytes=plan.num_bytes, loss=loss))
    return options


def expected_loss(feature: FeatureSpec, *, num_parts: int, num_centroids: int) -> float:
    """Share of a look-up's squared length that quantization is expected to lose, before any weight is known.

    Of K centroids some may each hold one frequent id exactly; the others share the rest of the ids, and lose nothing
    where there is one for each.
    """
    size, dimensions = num_ids(feature), feature.embedding_dim / num_parts
    losses = []
    for exact in {0, num_centroids // 2, num_centroids - 1}:
        others, left = size - exact, num_centroids - exact
        if others <= left:
            return 0.0
        losses.append(share_of_ids(feature, exact, size) * normal_loss(left, dimensions) * (1 - left / others))
    return min(losses)


def normal_loss(num_centroids: int, dimensions: float) -> float:
    """Variance that K centroids leave of independent normal values in w dimensions, within a fifth.

    K ** (-2 / w) is the bound of rate-distortion theory; at many bits w dimensions take c times that (Panter-Dite for
    one, Zador for more: 2.72, 2.02, 1.62, 1.38 for w = 1, 2, 4, 8), at few bits less.
    """
    excess = 1.72 * math.pow(dimensions, -0.75)
    step = math.pow(num_centroids, -1 / dimensions)
    return step**2 * (1 + excess * (1 - step) ** 2)
