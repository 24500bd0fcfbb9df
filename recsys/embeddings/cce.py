"""`cce`: clustered compositional embeddings: hashed chunks whose pointers are learned by clustering while training.

Tsang & Ahle, NeurIPS 2023, arXiv:2210.05974. An id's embedding is c chunks wide d / c, each the sum of two rows:
e = concat_i (A_i[p_i(id)] + B_i[h_i(id)]). The pointers p are stored for every id and start as hashes; h is a hash.
Before some steps each chunk's vectors are clustered: A_i becomes the centroids, p_i the nearest centroid of every id,
h_i is drawn anew, and B_i the mean of what the centroids leave of the ids in its rows.

Differences from the authors' program, which has errors: h_i is drawn once a clustering, not inside its loop over
batches; rows of B that no id reaches become zero, not NaN; the optimizer forgets both tables. And not after epochs but
before steps 8, 64, 512 and 4096: a callback does not know how long training will be, on large data the first epoch is
often the best, and then clusterings after epochs are never served. Of whatever length, training goes on with the last
clustering for most of its steps, unless it ends soon after one: `cluster_steps` then should leave that one out.

Measured on the Criteo sample at 10x (DCNv2, dense rate 2e-4, one seed, validation AUC of the best epoch): .7585 without
clustering, .7578 with one after each epoch. Most of its ids come once or twice, and what is clustered of them is noise.
Equal rows for all features gave .758 where rows in proportion to the vocabulary gave .736.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.collection import parts_in
from recsys.embeddings.method import MethodConfig, builds, fit, full_table, num_ids
from recsys.ops import bits
from recsys.ops.hashing import hash_rows, hash_rows_into, mix64, salt_for
from recsys.ops.kmeans import kmeans, nearest_centroids, weighted_means

POINTS_PER_CENTROID = 50
"""Ids that k-means sees for each centroid (the authors: 200, at four times the cost); all ids get a pointer."""

SEEDED = 64
"""Rows up to which k-means++ chooses where to start, which takes a step a row, each over all points."""

ITERATIONS = 15
"""Of k-means, at most."""

LEAST_ROWS, MAX_ROWS = 2, 1 << 12
"""Pointed rows of a chunk. With one, all ids would point to it. Beyond the most, clustering takes hours: it measures
the distance of every id to every row; 20 M ids with 4 chunks are 3e11 distances already, some 5 minutes of a core."""

BLOCK_IDS = 1 << 18
"""Ids whose pointers are made at once, a multiple of 8."""


class ClusteredRemap(Remap):
    """Rows of c stored pointers, then rows of c hashes.

    Chunk i owns rows [i R, (i + 1) R) of the pointed table and [i H, (i + 1) H) of the hashed one.
    """

    pointers: Tensor
    salts: Tensor
    chunks: Tensor

    def __init__(self, num_ids: int, num_rows: int, num_hashed: int, salts: list[int]) -> None:
        """Start with hashed pointers.

        Args:
            num_ids: n.
            num_rows: R, of each chunk in the pointed table.
            num_hashed: H, of each chunk in the hashed table.
            salts: of the pointers' first hashes and then of the hashes, c each.
        """
        super().__init__()
        self.num_ids, self.num_rows, self.num_hashed = num_ids, num_rows, num_hashed
        self.num_chunks = len(salts) // 2
        self.bits = bits.bits_for(num_rows)
        size = bits.packed_bytes(num_ids * self.num_chunks, self.bits)
        self.register_buffer("pointers", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("salts", torch.tensor(salts[self.num_chunks :], dtype=torch.int64))
        self.register_buffer("chunks", torch.arange(self.num_chunks).unsqueeze(1), persistent=False)
        if not self.pointers.is_meta:
            first = torch.tensor(salts[: self.num_chunks])
            for start in range(0, num_ids, BLOCK_IDS):
                self._fill_from(start, hash_rows(torch.arange(start, min(start + BLOCK_IDS, num_ids)), first, num_rows))

    def fill(self, pointers: Tensor) -> None:
        """Store the pointers of all ids: integers in [0, R), shape (c, n)."""
        assert pointers.shape == (self.num_chunks, self.num_ids), f"pointers of shape {tuple(pointers.shape)}"
        for number, part in enumerate(pointers.cpu().split(BLOCK_IDS, dim=1)):
            self._fill_from(number * BLOCK_IDS, part)

    def _fill_from(self, start: int, pointers: Tensor) -> None:
        """Store the pointers of some ids, (c, N), the first of which, a multiple of 8, begins a byte."""
        packed = bits.pack(pointers.T, self.bits)
        first = start * self.num_chunks * self.bits // 8
        self.pointers[first : first + packed.numel()] = packed  # three bytes more than needed; the next part has them

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (2 c, N): of the pointers, then of the hashes."""
        rows = torch.empty([2 * self.num_chunks, ids.numel()], dtype=torch.int64, device=ids.device)
        pointed, hashed = rows[: self.num_chunks], rows[self.num_chunks :]
        bits.unpack_into(pointed, self.pointers, ids, self.bits)
        hash_rows_into(hashed, ids, self.salts, self.num_hashed)
        pointed.add_(self.chunks * self.num_rows)
        hashed.add_(self.chunks * self.num_hashed)
        return rows

    def rows_needed(self) -> list[int] | None:
        """One past the last row of each chunk, of pointed rows and of hashed ones."""
        counts = (self.num_rows, self.num_hashed)
        return [(chunk + 1) * count for count in counts for chunk in range(self.num_chunks)]


class PairSums(Combiner):
    """Sums of the first and second half of the rows, side by side."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return concat_i (rows[i] + rows[c + i])."""
        half = len(rows) // 2
        return torch.cat(rows[:half], dim=-1) + torch.cat(rows[half:], dim=-1)


class Clustering(Callback):
    """Clusters the ids of every feature before stated steps, so that a step always follows.

    Rank 0 computes the clusters and tells them: ranks that add in another order would not find the same ones. What is
    done depends on the step, the rows and the remaps, so a restart needs no state.
    """

    def __init__(self, plan: TablePlan, config: "CCEConfig") -> None:
        self._entries = [e for e in plan.features if builds(e.remap, ClusteredRemap)]
        self._config = config

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Cluster where it is time."""
        if step not in self._config.cluster_steps:
            return
        parts = parts_in(session.model)
        for entry in self._entries:
            remap = parts[entry.feature.name][0]
            assert isinstance(remap, ClusteredRemap)
            self._cluster(session, entry, remap, step)

    def _cluster(self, session: TrainingSession, entry: FeaturePlan, remap: ClusteredRemap, step: int) -> None:
        count, names = remap.num_chunks, (entry.tables[0], entry.tables[-1])
        rows = [torch.arange(count * size) for size in (remap.num_rows, remap.num_hashed)]
        tables = [
            session.read_rows(name, all_rows).cpu().contiguous().unflatten(0, (count, -1))
            for name, all_rows in zip(names, rows, strict=True)
        ]
        salts = mix64(remap.salts.cpu() + step)
        pointers = torch.zeros(count, remap.num_ids, dtype=torch.int64)
        if session.is_main:
            places = _places(remap)
            generator = torch.Generator().manual_seed(salt_for(entry.feature.name, step, self._config.seed))
            for chunk in range(count):
                vectors = tables[0][chunk][places[0][chunk]] + tables[1][chunk][places[1][chunk]]
                tables[0][chunk], pointers[chunk] = _centroids(vectors, remap.num_rows, generator)
                buckets = hash_rows(torch.arange(remap.num_ids), salts[chunk : chunk + 1], remap.num_hashed)[0]
                tables[1][chunk] = _means(vectors - tables[0][chunk][pointers[chunk]], buckets, remap.num_hashed)
        if session.world_size > 1:
            for value in (*tables, pointers):
                dist.broadcast(value, src=0)
        for name, all_rows, table in zip(names, rows, tables, strict=True):
            session.write_rows(name, all_rows, table.flatten(0, 1))
        remap.fill(pointers)
        remap.salts.copy_(salts)


def _places(remap: ClusteredRemap) -> tuple[Tensor, Tensor]:
    """Places of all ids within the chunks of either table, (c, n) each, on the CPU."""
    blocks = [
        remap(torch.arange(start, min(start + BLOCK_IDS, remap.num_ids), device=remap.salts.device)).cpu()
        for start in range(0, remap.num_ids, BLOCK_IDS)
    ]
    pointed, hashed = torch.cat(blocks, dim=1).chunk(2)
    return pointed % remap.num_rows, hashed % remap.num_hashed


def _centroids(vectors: Tensor, num_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(centroids (R, d / c), nearest of every vector (n,)), from a sample of the vectors."""
    chosen = torch.randperm(len(vectors), generator=generator)[: POINTS_PER_CENTROID * num_rows]
    sample = vectors[chosen]
    weights = torch.ones(len(sample))
    found = kmeans(sample, num_rows, weights=weights, generator=generator, iterations=ITERATIONS, seeded=SEEDED)
    return found, nearest_centroids(vectors, found)[0]


def _means(vectors: Tensor, buckets: Tensor, num_rows: int) -> Tensor:
    """Mean of the vectors of each bucket, zeros where there is none."""
    zeros = torch.zeros(num_rows, vectors.shape[1])
    return weighted_means(vectors, buckets, torch.ones(len(vectors)), fallback=zeros)


@dataclass(frozen=True, kw_only=True)
class CCEConfig(MethodConfig):
    """Two tables a feature and c pointers an id, of as many bits as tell a chunk's rows apart.

    All features get the same number of rows, as the authors cap their tables, so that small vocabularies, which would
    not shrink, keep full tables. There are as many hashed rows as pointed ones, or more where budget is left that is
    too little for another bit of all pointers: so nearly all of it is used. The floor is two rows a chunk and c bits an
    id for pointers; less is refused, because without pointers nothing is clustered: `ce` is that. Memory of a
    clustering, on rank 0: the pointers of one feature as int64, four times, and the vectors of one chunk.
    """

    num_chunks: int = 4  # a width that it does not divide is cut into the most chunks below it that do
    cluster_steps: list[int] = field(default_factory=lambda: [8, 64, 512, 4096])  # steps before which ids are clustered
    seed: int = 0  # of hashes and clusterings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_chunks < 1:
            raise ConfigError(f"num_chunks={self.num_chunks}: must be 1 or more.")
        if any(step < 1 for step in self.cluster_steps):
            raise ConfigError(f"cluster_steps={self.cluster_steps}: steps count from 1. Give none to cluster never.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan the most rows that fit, as many of either kind; then hashed ones alone."""

        def make(num_rows: int, num_hashed: int) -> TablePlan:
            return TablePlan.merge([self._plan_one(feature, num_rows, num_hashed) for feature in features])

        most = max(LEAST_ROWS, *(num_ids(feature) for feature in features))
        found = fit(lambda rows: make(rows, rows), LEAST_ROWS, min(most, MAX_ROWS), budget_bytes)
        num_rows = max((e.remap.params.get("num_rows", 0) for e in found.features), default=0)
        # One row more would cost another bit of all pointers, where R is a power of two: what is left buys hashed rows.
        return fit(lambda rows: make(num_rows, rows), num_rows, most, budget_bytes) if num_rows else found

    def _plan_one(self, feature: FeatureSpec, num_rows: int, num_hashed: int) -> TablePlan:
        chunks = max(c for c in range(1, self.num_chunks + 1) if feature.embedding_dim % c == 0)
        sizes = {f"table_{feature.name}_pointed": num_rows, f"table_{feature.name}_hashed": num_hashed}
        width = feature.embedding_dim // chunks
        tables = tuple(
            TableSpec(name=name, num_embeddings=chunks * size, embedding_dim=width, init=self.init)
            for name, size in sizes.items()
        )
        salts = [salt_for(feature.name, lookup, self.seed) for lookup in range(2 * chunks)]
        remap = Component.of(
            ClusteredRemap, num_ids=num_ids(feature), num_rows=num_rows, num_hashed=num_hashed, salts=salts
        )
        entry = FeaturePlan(
            feature=feature,
            tables=tuple(name for name in sizes for _ in range(chunks)),
            remap=remap,
            combiner=Component.of(PairSums),
        )
        plan, full = TablePlan(tables=tables, features=(entry,)), full_table(feature, self.init)
        return plan if plan.num_bytes < full.num_bytes else full

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """The clustering."""
        return [Clustering(plan, self)]
