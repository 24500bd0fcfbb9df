"""`dpq`: train a full table through a codebook, serve codes and the codebook (DPQ-VQ, ICML 2020, arXiv:1908.09756).

A row is cut into P parts; each part is replaced by the nearest of K centroids of that part. The gradient passes to the
row as if nothing had happened, and the loss gets mean |centroid - row|^2, which moves the centroids after their rows.
Served are n * P * log2 K bits of codes and 4 * K * d bytes of centroids; training takes more than full tables do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.callback import Callback
from recsys.core.component import Component, load_class
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.allocation import Option
from recsys.embeddings.codebook_training import TrainCodebooks
from recsys.embeddings.codes import code_sizes, codes_bytes, codes_parts, codes_plan, nearest
from recsys.embeddings.method import MethodConfig, full_table, num_ids
from recsys.embeddings.pq import expected_loss
from recsys.ops.kmeans import refine

ROWS_AT_ONCE = 1 << 16
"""Rows whose codes are computed together when a table is frozen."""


class _Known(torch.autograd.Function):
    """A loss of the codebook whose value, a scalar, and gradient, (P, K, d / P), are known already."""

    @staticmethod
    def forward(ctx: Any, codebook: Tensor, value: Tensor, gradient: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch's own
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient * factor, None, None


class NearestCentroids(Combiner):
    """The row with each part replaced by its nearest centroid. Not linear: multi-valued features pool afterwards.

    Distances are plain. Published code normalises them by statistics of the batch, so that all centroids get used; but
    then an id's code depends on the batch and the rank that it is in, and later on running statistics, and the centroid
    pulled towards a row need not be near it. Here unused centroids are moved instead: see `TrainCodebooks`.
    """

    linear: bool = False
    last_error: Tensor
    last_gradient: Tensor

    def __init__(self, codebook: list[int], init_scale: float, penalty_weight: float) -> None:
        """Take the codebook's shape [P, K, d / P], the deviation of its first values, and what its penalty counts."""
        super().__init__()
        self.num_parts, self.num_centroids, self.part_dim = codebook
        self.penalty_weight = penalty_weight
        self.codebook = nn.Parameter(torch.empty(codebook).normal_(0.0, init_scale))
        self.pending = False  # is there a last forward pass whose penalty nobody took?
        self.last_error, self.last_gradient = torch.empty(0), torch.empty(0)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the centroids nearest to `rows[0]`, (N, d), whose gradient goes to the row."""
        row = rows[0].detach()
        places = self.places(self.codes(ids, row))
        found = self.centroids(places)
        self.pending = self.training and torch.is_grad_enabled()
        if self.pending:
            # Zeros are what a row without an id looks up. Summed now, while the errors are still in the cache.
            self.keep(places, (found - row).mul_(row.any(1, keepdim=True)))
        return found + (rows[0] - row)

    def codes(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Codes of rows (N, d), int64, shape (N, P)."""
        return nearest(self.split(rows), self.codebook.detach())

    def split(self, rows: Tensor) -> Tensor:
        """Cut rows (N, d) into parts (N, P, d / P)."""
        return rows.reshape(-1, self.num_parts, self.part_dim)

    def places(self, codes: Tensor) -> Tensor:
        """Where the centroids of codes (N, P) lie among those of all parts, int64, shape (N, P)."""
        return codes + torch.arange(self.num_parts, device=codes.device) * self.num_centroids

    def centroids(self, places: Tensor) -> Tensor:
        """The centroids at places (N, P) side by side, (N, d)."""
        return torch.embedding(self.codebook.detach().flatten(0, 1), places).flatten(1)

    def keep(self, places: Tensor, errors: Tensor) -> None:
        """Keep the sum of squared errors (N, d) of the centroids at places (N, P), and half its gradient."""
        flat = errors.flatten()
        self.last_error = torch.dot(flat, flat)
        # By columns: the gradient that `embedding` has for its rows takes 18 times as long on a CPU.
        columns = flat.view(-1, self.part_dim).t()
        sums = columns.new_zeros(self.part_dim, self.num_parts * self.num_centroids)
        sums.scatter_add_(1, places.flatten().expand(self.part_dim, -1), columns)
        self.last_gradient = sums.t().reshape_as(self.codebook)

    def take_penalty(self) -> Tensor | None:
        """Weighted |centroid - row|^2 / d, summed over the last forward pass, once; a loss of the codebook alone."""
        if not self.pending:
            return None
        self.pending = False
        weight = self.penalty_weight / (self.num_parts * self.part_dim)
        error, gradient = self.last_error * weight, self.last_gradient * (2 * weight)
        penalty: Tensor = _Known.apply(self.codebook, error, gradient)  # type: ignore[no-untyped-call]
        return penalty

    def refined(self, ids: Tensor, rows: Tensor, iterations: int) -> Tensor:
        """The codebook after k-means on sampled rows (N, d), (P, K, d / P); unused centroids move to outlying rows."""
        return refine_parts(self.codebook.detach().cpu(), self.split(rows), iterations)


def refine_parts(codebook: Tensor, parts: Tensor, iterations: int) -> Tensor:
    """Lloyd's iterations of every part: codebook (P, K, w), sampled parts (N, P, w) -> codebook.

    With fewer rows than centroids the others stay where they are.
    """
    weights = torch.ones(len(parts))
    moved = [
        refine(parts[:, p], book[: len(parts)], weights=weights, iterations=iterations)
        for p, book in enumerate(codebook)
    ]
    return torch.cat([torch.stack(moved), codebook[:, len(parts) :]], dim=1)


@dataclass(frozen=True, kw_only=True)
class DPQConfig(MethodConfig):
    """Codes of one shape for every feature; those with least expected error that fit the budget.

    A feature that would not shrink keeps a full table. Sharing out bits by the error expected of each feature, as `pq`
    does, was worse: on Frappe at a 30th of the bytes the first epoch ended at a validation AUC of 0.933, not 0.937.
    """

    part_dim: int = 2  # values of a part, at least
    num_centroids: int = 256  # of a part, at most; a power of two
    penalty_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part_dim < 1:
            raise ConfigError(f"part_dim={self.part_dim}: a part needs one value or more.")
        if not 2 <= self.num_centroids <= 2**16 or self.num_centroids & (self.num_centroids - 1):
            raise ConfigError(
                f"num_centroids={self.num_centroids}: must be a power of two in [2, 65536]; others need codes as long "
                "as the next one."
            )
        if not 0 < self.penalty_weight < math.inf:
            raise ConfigError(
                f"penalty_weight={self.penalty_weight}: must be finite and above 0, or centroids would stay put."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Choose the shape of all codes; its floor is one bit an id."""
        sizes = code_sizes(features[0].embedding_dim, part_dim=self.part_dim, num_centroids=self.num_centroids)
        choices = [[self._smaller(feature, *size) for feature in features] for size in sizes]
        fitting = [options for options in choices if _bytes(options) <= budget_bytes]
        if fitting:
            best = min(fitting, key=lambda options: (sum(option.loss for option in options), _bytes(options)))
        else:
            best = min(choices, key=_bytes)
        return TablePlan.merge([option.plan for option in best])

    def _smaller(self, feature: FeatureSpec, num_parts: int, num_centroids: int) -> Option:
        full, coded = full_table(feature, self.init), self.option(feature, num_parts, num_centroids)
        kept = Option(plan=full, num_bytes=full.num_bytes, loss=0.0)
        return coded if coded.num_bytes < kept.num_bytes else kept

    def option(self, feature: FeatureSpec, num_parts: int, num_centroids: int) -> Option:
        """One way to code a feature."""
        return Option(
            plan=self.coded(feature, num_parts, num_centroids),
            num_bytes=codes_bytes(num_ids(feature), feature.embedding_dim, num_parts, num_centroids),
            loss=expected_loss(feature, num_parts=num_parts, num_centroids=num_centroids),
        )

    def coded(self, feature: FeatureSpec, num_parts: int, num_centroids: int) -> TablePlan:
        """The training plan of codes."""
        plan = full_table(feature, self.init)
        combiner = self.combiner(feature, [num_parts, num_centroids, feature.embedding_dim // num_parts])
        return TablePlan(tables=plan.tables, features=(replace(plan.features[0], combiner=combiner),))

    def combiner(self, feature: FeatureSpec, codebook: list[int]) -> Component:
        """What trains a codebook of that shape."""
        return Component.of(
            NearestCentroids, codebook=codebook, init_scale=self.init.scale, penalty_weight=self.penalty_weight
        )

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """What moves the centroids."""
        tables = {entry.feature.name: plan.table(entry.tables[0]) for entry in plan.features if is_coded(entry)}
        return [TrainCodebooks(tables)] if tables else []

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Packed codes and a codebook table for each coded feature."""
        return TablePlan.merge(
            [self.served_codes(e) if is_coded(e) else plan.of([e.feature.name]) for e in plan.features]
        )

    def served_codes(self, entry: FeaturePlan) -> TablePlan:
        """What is served of one coded feature."""
        num_parts, num_centroids, _ = entry.combiner.params["codebook"]
        return codes_plan(entry.feature, num_parts=num_parts, num_centroids=num_centroids)

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Compute the codes of all ids, also of those that training never saw."""
        return EmbeddingParts.merge([self._freeze_one(parts.of([e.feature.name])) for e in parts.plan.features])

    def _freeze_one(self, parts: EmbeddingParts) -> EmbeddingParts:
        (entry,) = parts.plan.features
        combiner = parts.combiners[entry.feature.name]
        if not isinstance(combiner, NearestCentroids):
            return parts
        table = parts.tables[entry.tables[0]]
        ids = torch.arange(len(table)).split(ROWS_AT_ONCE)
        codes = torch.cat([combiner.codes(some, table[some]) for some in ids])
        return codes_parts(self.served_codes(entry), codes, combiner.codebook)


def _bytes(options: Sequence[Option]) -> int:
    return sum(option.num_bytes for option in options)


def is_coded(entry: FeaturePlan) -> bool:
    """True if the feature is trained through a codebook."""
    return issubclass(load_class(entry.combiner.target), NearestCentroids)
