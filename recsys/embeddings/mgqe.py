"""`mgqe`: `dpq` with fewer centroids for rare ids (multi-granular quantized embeddings, WWW 2020, arXiv:2002.08530).

Frequent ids choose among K centroids of each part, the others among the first K / `tail_divisor` of the same: rare rows
are learned from few look-ups, and shorter codes of coarser choices generalise better than they lose.
Served are (n_head log2 K + n_tail log2 K_tail) * P bits of codes and 4 * K * d bytes of centroids.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.allocation import Option
from recsys.embeddings.codes import codebook_plan, nearest
from recsys.embeddings.dpq import DPQConfig, NearestCentroids, refine_parts
from recsys.embeddings.frequency import share_of_ids
from recsys.embeddings.method import FLOAT_BYTES, num_ids
from recsys.embeddings.pq import expected_loss
from recsys.ops import bits


class HeadTailCentroids(NearestCentroids):
    """The nearest of all centroids for ids below `num_head`, of the first `tail_centroids` for the others."""

    def __init__(
        self, codebook: list[int], init_scale: float, penalty_weight: float, num_head: int, tail_centroids: int
    ) -> None:
        super().__init__(codebook, init_scale, penalty_weight)
        self.num_head, self.tail_centroids = num_head, tail_centroids

    def codes(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Codes of rows (N, d), int64, shape (N, P)."""
        codebook, in_head = self.codebook.detach(), ids < self.num_head
        head, tail = in_head.nonzero().squeeze(1), (~in_head).nonzero().squeeze(1)
        codes = ids.new_empty(rows.size(0), self.num_parts)
        for chosen, centroids in ((head, codebook), (tail, codebook[:, : self.tail_centroids])):
            codes.index_copy_(0, chosen, nearest(self.split(rows.index_select(0, chosen)), centroids))
        return codes

    def refined(self, ids: Tensor, rows: Tensor, iterations: int) -> Tensor:
        """The first centroids by k-means on all sampled rows, the others by k-means on those of frequent ids."""
        parts, codebook = self.split(rows), self.codebook.detach().cpu()
        tail = refine_parts(codebook[:, : self.tail_centroids], parts, iterations)
        rest = codebook[:, self.tail_centroids :]
        frequent = parts[ids < self.num_head]
        if rest.shape[1] and len(frequent):
            rest = refine_parts(rest, frequent, iterations)
        return torch.cat([tail, rest], dim=1)


class HeadTailCodesRemap(Remap):
    """Row p * K + code of id and part, from long codes of ids below `num_head` and short ones of the others."""

    head: Tensor
    tail: Tensor
    parts: Tensor

    def __init__(self, num_ids: int, num_head: int, num_parts: int, num_centroids: int, tail_centroids: int) -> None:
        super().__init__()
        self.num_head, self.num_parts, self.num_centroids = num_head, num_parts, num_centroids
        self.bits, self.tail_bits = bits.bits_for(num_centroids), bits.bits_for(tail_centroids)
        for name, count, width in (("head", num_head, self.bits), ("tail", num_ids - num_head, self.tail_bits)):
            size = bits.packed_bytes(count * num_parts, width)
            self.register_buffer(name, torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("parts", torch.arange(num_parts).unsqueeze(1), persistent=False)

    def fill(self, codes: Tensor) -> None:
        """Store the codes of all ids: integers, shape (n, P), below K, and below K_tail from row `num_head` on."""
        self.head.copy_(bits.pack(codes[: self.num_head], self.bits))
        self.tail.copy_(bits.pack(codes[self.num_head :], self.tail_bits))

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows of the codebook table, int64, shape (P, N)."""
        own = ids.unsqueeze(0)
        in_head = own.clamp(max=self.num_head - 1) * self.num_parts + self.parts
        in_tail = (own - self.num_head).clamp(min=0) * self.num_parts + self.parts
        fine, coarse = bits.unpack(self.head, in_head, self.bits), bits.unpack(self.tail, in_tail, self.tail_bits)
        return torch.where(own < self.num_head, fine, coarse) + self.parts * self.num_centroids

    def rows_needed(self) -> list[int] | None:
        """Those of each part and all before it."""
        return [(part + 1) * self.num_centroids for part in range(self.num_parts)]


@dataclass(frozen=True, kw_only=True)
class MGQEConfig(DPQConfig):
    """Long codes for frequent ids, short ones for the rest; see `DPQConfig` for budgets."""

    head_share: float = 0.1  # of a feature's ids, the most frequent ones
    tail_divisor: int = 4  # the others choose among that part of the centroids, but never among fewer than 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.head_share < 1:
            raise ConfigError(f"head_share={self.head_share}: must lie between 0 and 1; embedding=dpq has one kind.")
        if self.tail_divisor < 2:
            raise ConfigError(f"tail_divisor={self.tail_divisor}: must be 2 or more; embedding=dpq has one kind.")

    def option(self, feature: FeatureSpec, num_parts: int, num_centroids: int) -> Option:
        """One way to code a feature, with the error expected of its head and tail."""
        head, tail = self._head(feature), self._tail(num_centroids)
        size = num_ids(feature)
        packed = bits.packed_bytes(head * num_parts, bits.bits_for(num_centroids))
        packed += bits.packed_bytes((size - head) * num_parts, bits.bits_for(tail))
        fine = expected_loss(feature, num_parts=num_parts, num_centroids=num_centroids)
        coarse = expected_loss(feature, num_parts=num_parts, num_centroids=tail)
        share = share_of_ids(feature, 0, head)
        return Option(
            plan=self.coded(feature, num_parts, num_centroids),
            num_bytes=packed + num_centroids * feature.embedding_dim * FLOAT_BYTES,
            loss=share * fine + (1 - share) * coarse,
        )

    def combiner(self, feature: FeatureSpec, codebook: list[int]) -> Component:
        """What trains a codebook of that shape [P, K, d / P]."""
        return Component.of(
            HeadTailCentroids,
            codebook=codebook,
            init_scale=self.init.scale,
            penalty_weight=self.penalty_weight,
            num_head=self._head(feature),
            tail_centroids=self._tail(codebook[1]),
        )

    def served_codes(self, entry: FeaturePlan) -> TablePlan:
        """What is served of one coded feature."""
        params = entry.combiner.params
        num_parts, num_centroids, _ = params["codebook"]
        remap = Component.of(
            HeadTailCodesRemap,
            num_ids=num_ids(entry.feature),
            num_head=params["num_head"],
            num_parts=num_parts,
            num_centroids=num_centroids,
            tail_centroids=params["tail_centroids"],
        )
        return codebook_plan(entry.feature, remap, num_parts=num_parts, num_centroids=num_centroids)

    def _head(self, feature: FeatureSpec) -> int:
        return max(1, math.floor(self.head_share * num_ids(feature)))

    def _tail(self, num_centroids: int) -> int:
        return max(2, num_centroids // self.tail_divisor)
