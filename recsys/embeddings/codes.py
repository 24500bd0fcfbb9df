"""Product codes, as `dpq`, `mgqe` and `pq` serve them: few bits an id and part, and one small codebook table a feature.

Legend: n ids, P parts, K centroids of a part, d width of the feature.
"""

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Concat
from recsys.embeddings.method import FLOAT_BYTES, num_ids
from recsys.ops import bits


class CodesRemap(Remap):
    """Row p * K + code of id and part, for every part p: centroids of part p lie from row p * K on."""

    codes: Tensor
    parts: Tensor

    def __init__(self, num_ids: int, num_parts: int, num_centroids: int) -> None:
        super().__init__()
        self.num_ids, self.num_parts, self.num_centroids = num_ids, num_parts, num_centroids
        self.bits = bits.bits_for(num_centroids)
        size = bits.packed_bytes(num_ids * num_parts, self.bits)
        self.register_buffer("codes", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("parts", torch.arange(num_parts).unsqueeze(1), persistent=False)

    def fill(self, codes: Tensor) -> None:
        """Store the codes of all ids: integers in [0, K), shape (n, P)."""
        assert codes.shape == (self.num_ids, self.num_parts), f"codes of shape {tuple(codes.shape)}"
        self.codes.copy_(bits.pack(codes, self.bits))

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows of the codebook table, int64, shape (P, N)."""
        rows = torch.empty([self.num_parts, ids.numel()], dtype=torch.int64, device=ids.device)
        bits.unpack_into(rows, self.codes, ids, self.bits)
        return rows.add_(self.parts * self.num_centroids)

    def rows_needed(self) -> list[int] | None:
        """Those of the last part and all before it: a code tells centroids apart, but codes unset are 0."""
        return [(part + 1) * self.num_centroids for part in range(self.num_parts)]


def codes_plan(
    feature: FeatureSpec, *, num_parts: int, num_centroids: int, combiner: Component | None = None
) -> TablePlan:
    """What is served of a feature: a table of P * K centroids, wide d / P each, and packed codes that point into it.

    Args:
        feature: with a vocabulary; P divides its width.
        num_parts: P.
        num_centroids: K.
        combiner: of the P rows; side by side where none is given.
    Raises:
        ConfigError: the feature has no vocabulary.
    """
    assert feature.embedding_dim % num_parts == 0, f"{num_parts} parts of width {feature.embedding_dim}"
    remap = Component.of(CodesRemap, num_ids=num_ids(feature), num_parts=num_parts, num_centroids=num_centroids)
    return codebook_plan(feature, remap, num_parts=num_parts, num_centroids=num_centroids, combiner=combiner)


def codebook_plan(
    feature: FeatureSpec, remap: Component, *, num_parts: int, num_centroids: int, combiner: Component | None = None
) -> TablePlan:
    """The codebook table of `codes_plan` behind any remap that reads one row of each part and has a `fill(codes)`."""
    table = TableSpec(
        name=f"codebook_{feature.name}",
        num_embeddings=num_parts * num_centroids,
        embedding_dim=feature.embedding_dim // num_parts,
    )
    entry = FeaturePlan(
        feature=feature, tables=(table.name,) * num_parts, remap=remap, combiner=combiner or Component.of(Concat)
    )
    return TablePlan(tables=(table,), features=(entry,))


def codes_parts(plan: TablePlan, codes: Tensor, codebook: Tensor) -> EmbeddingParts:
    """Give the plan of one feature, made by `codes_plan` or `codebook_plan`, its values.

    Args:
        plan: of one feature; its combiner has no weights, or its caller sets them.
        codes: integers in [0, K), shape (n, P).
        codebook: float32, shape (P, K, d / P).
    """
    (entry,), (table,) = plan.features, plan.tables
    remap, combiner = entry.remap.build(), entry.combiner.build()
    remap.fill(codes)  # type: ignore[operator]  # of `CodesRemap` and what else is put before a codebook
    name = entry.feature.name
    rows = codebook.detach().reshape(table.num_embeddings, table.embedding_dim).clone()
    return EmbeddingParts(plan=plan, tables={table.name: rows}, remaps={name: remap}, combiners={name: combiner})  # type: ignore[dict-item]


def nearest(rows: Tensor, codebook: Tensor, scores_at_once: int = 1 << 17) -> Tensor:
    """Code of the nearest centroid of every part, the first of equals.

    The nearest has the highest of 2 <x, c> - |c|^2. These sums run over values one by one, not in a matrix product: so
    a row's codes are the same to the last bit in a batch of any size, under autocast too, and what is served is what
    was trained.

    Args:
        rows: float32, shape (N, P, d / P).
        codebook: float32, shape (P, K, d / P).
        scores_at_once: on a CPU, as many as stay in a cache.
    Returns:
        int64, shape (N, P).
    """
    count, parts, dim, size = rows.size(0), rows.size(1), rows.size(2), codebook.size(1)
    if not count:
        return torch.empty(0, parts, dtype=torch.int64, device=rows.device)
    # Rows innermost, so that both sums and maxima run over vectors of them: 8 times as fast on a CPU.
    values = rows.reshape(count, -1).t().contiguous().view(parts, dim, count)
    factors = (2 * codebook).permute(2, 0, 1).unsqueeze(3)
    # 64 at least: loops over fewer rows do not pay their start.
    step = count if rows.is_cuda else min(max(scores_at_once // (parts * size), 64), count)
    bias = codebook.square().sum(-1).neg().unsqueeze(2).expand(-1, -1, step).contiguous()
    scores = torch.empty_like(bias)
    found: list[Tensor] = []
    for some in values.split(step, dim=2):
        here = scores[:, :, : some.size(2)]
        torch.addcmul(bias[:, :, : some.size(2)], some[:, :1], factors[0], out=here)
        for value in range(1, dim):
            here.addcmul_(some[:, value : value + 1], factors[value])
        found.append(first_highest(here))
    return torch.cat(found, dim=1).t().contiguous()


def first_highest(scores: Tensor) -> Tensor:
    """Index of the highest score, the first of equals: float32 (P, K, N), contiguous in N -> int64 (P, N)."""
    if scores.is_cuda:
        return scores.max(dim=1)[1]
    # Pooling with the channels last keeps a vector of indices beside one of maxima; `max` goes element by element, and
    # takes 8 times as long.
    images = scores.transpose(1, 2).unsqueeze(2)  # (P, N channels, height 1, width K)
    return nn.functional.max_pool2d_with_indices(images, [1, scores.size(1)])[1].flatten(1)


def code_sizes(width: int, *, part_dim: int, num_centroids: int) -> list[tuple[int, int]]:
    """Numbers of parts and centroids to choose from.

    Args:
        width: d.
        part_dim: values of a part at least; all d where the feature is narrower.
        num_centroids: at most so many, 2 or more.
    Returns:
        (P, K), the most of both last: P divides d, K is a power of two, because others need as many bits as the next.
    """
    parts = [p for p in range(1, width + 1) if width % p == 0 and width // p >= min(part_dim, width)]
    return [(p, 1 << b) for p in parts for b in range(1, num_centroids.bit_length())]


def codes_bytes(num_ids: int, width: int, num_parts: int, num_centroids: int) -> int:
    """What `codes_plan` takes: packed codes and the codebook."""
    codes = bits.packed_bytes(num_ids * num_parts, bits.bits_for(num_centroids))
    return codes + num_centroids * width * FLOAT_BYTES
