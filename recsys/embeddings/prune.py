"""`prune`: the smallest weights of full tables become zero, after training or while it goes on.

Sources: Deng et al., "DeepLight", WSDM 2021, arXiv:2002.06987 (magnitude pruning while training, adaptive rate); Zhang
et al., VLDB 2024, arXiv:2311.15578 (bytes of sparse formats).

Legend: n rows of a feature with a bitmap, d its width, k weights kept of all features together.

Stored are one bit a weight, an int32 for every 16 rows (the place of the first kept weight), and the kept weights of
all features in one table of width 1 behind a zero: 4 (k + 1) + sum over features of n d / 8 + n / 4 bytes, n rounded up
to 16. CSR (int32 column and float32 value a weight, int32 a row) takes 8 k + 4 n, COO 12 k. So of the weights of
16-wide rows, half of the bytes keep 46 % here, 22 % in CSR and 17 % in COO. Below one weight kept in `DENSEST` the
bitmaps would be most of the bytes: rows of the rarest ids then have none, and embed to zero. The floor is 16 rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.callback import Callback, TrainingSession
from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Concat
from recsys.embeddings.frequency import heads
from recsys.embeddings.method import FLOAT_BYTES, num_ids
from recsys.embeddings.post_training import PostTrainingConfig

BLOCK_ROWS = 16
"""Rows whose bits are counted at a look-up; 16 rows of any width are whole bytes."""

START_BYTES = 4

MAX_KEPT = 2**31 - 1
"""Weights that int32 places, which count from 1, can tell apart."""

SAMPLED_WEIGHTS = 1 << 22
"""While training, the threshold is found among so many weights, about, and exactly if there are no more."""

ROWS_AT_ONCE = 1 << 18
"""Read by all ranks while training: bounds the memory."""

DENSEST = 16
"""A bitmap must keep one of so many of its weights at least, on average."""


class PrunedRemap(Remap):
    """Where each of an id's d weights lies: row 0 holds a zero, kept weights follow in the order of ids and columns."""

    bitmap: Tensor
    starts: Tensor
    columns: Tensor

    def __init__(self, num_rows: int, embedding_dim: int, num_values: int) -> None:
        """`num_rows`: ids from there on are zero; `num_values`: rows of the table of weights, the zero included."""
        super().__init__()
        self.num_rows, self.embedding_dim, self.num_values = num_rows, embedding_dim, num_values
        blocks = (num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
        self.register_buffer("bitmap", torch.zeros(blocks, BLOCK_ROWS * embedding_dim // 8, dtype=torch.uint8))
        self.register_buffer("starts", torch.zeros(blocks, dtype=torch.int32))
        self.register_buffer("columns", torch.arange(embedding_dim), persistent=False)

    def fill(self, kept: Tensor, first: int) -> None:
        """Store which weights are kept: bool, shape (num_rows, d); `first` is the row of the first one's value."""
        bits = kept.new_zeros(self.bitmap.shape[0] * BLOCK_ROWS, self.embedding_dim)
        bits[: self.num_rows] = kept
        per_block = bits.view(self.bitmap.shape[0], -1)
        shifts = torch.arange(8, dtype=torch.uint8)
        self.bitmap.copy_((per_block.unflatten(1, (-1, 8)).to(torch.uint8) << shifts).sum(2))
        counts = per_block.sum(1)
        self.starts.copy_(first + counts.cumsum(0) - counts)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (d, N): of each column the row of its value, or 0."""
        known = (ids >= 0) & (ids < self.num_rows)
        inside = torch.where(known, ids, torch.zeros_like(ids))
        block = inside // 16  # BLOCK_ROWS; TorchScript does not see a module's constants
        words = self.bitmap[block]
        first = (inside - block * 16) * self.embedding_dim  # the id's first bit within its block
        # Weights before the id's own: set bits of each byte below that bit.
        below = (first.unsqueeze(1) - torch.arange(0, words.size(1) * 8, 8, device=ids.device)).clamp(0, 8)
        masked = words.to(torch.int64) & ((torch.ones_like(below) << below) - 1)
        masked = masked - ((masked >> 1) & 0x55)
        masked = (masked & 0x33) + ((masked >> 2) & 0x33)
        before = self.starts[block].to(torch.int64) + ((masked + (masked >> 4)) & 0x0F).sum(1)
        places = first.unsqueeze(1) + self.columns
        bits = (words.gather(1, places >> 3).to(torch.int64) >> (places & 7)) & 1
        rows = (before.unsqueeze(1) + bits.cumsum(1) - 1) * bits
        return (rows * known.unsqueeze(1)).t()

    def rows_needed(self) -> list[int] | None:
        """All values, for every column."""
        return [self.num_values] * self.embedding_dim


@dataclass(frozen=True, kw_only=True)
class PruneConfig(PostTrainingConfig):
    """As many weights as the budget holds, by magnitude over all features; the rest of them are zero."""

    during_training: bool = False  # zero the smallest weights every few steps too; they may grow again
    every: int = 10  # steps between two of these
    damping_steps: int = 100  # share zeroed at step t: target * (1 - 0.99 ** (t / damping_steps))
    warm_up_steps: int = 0  # steps before the first

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("every", 1), ("damping_steps", 1), ("warm_up_steps", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: must be {least} or more, in steps.")

    def serve(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Give bitmaps to the most frequent ids, as many as are not too sparse, and the rest to weights."""
        low, high = 0, sum(num_ids(feature) for feature in features)
        while low < high:
            middle = (low + high + 1) // 2
            if _num_kept(_bitmap_rows(features, middle), budget_bytes)[1]:
                low = middle
            else:
                high = middle - 1
        rows = _bitmap_rows(features, low)
        kept = max(_num_kept(rows, budget_bytes)[0], 1)
        if kept > MAX_KEPT:
            raise ConfigError(
                f"{kept:,} weights would be kept, but `prune` finds them by int32 places, {MAX_KEPT:,} at most. Lower "
                f"the budget to {MAX_KEPT * FLOAT_BYTES / 2**20:,.0f} MiB or less, or choose a method of whole rows."
            )
        return _pruned_plan(rows, kept)

    def compress(self, served: TablePlan, trained: Mapping[str, Tensor]) -> EmbeddingParts:
        """Keep the largest weights of all rows that have bitmaps."""
        entries = served.features
        rows = [trained[e.feature.name][: e.remap.params["num_rows"]] for e in entries]
        kept = largest(torch.cat([part.reshape(-1) for part in rows]), served.tables[0].num_embeddings - 1)
        remaps: dict[str, Remap] = {}
        values, first = [torch.zeros(1)], 1
        for entry, part, mask in zip(entries, rows, kept.split([part.numel() for part in rows]), strict=True):
            remap = entry.remap.build()
            assert isinstance(remap, PrunedRemap)
            remap.fill(mask.view(part.shape), first)
            remaps[entry.feature.name] = remap
            values.append(part.reshape(-1)[mask])
            first += values[-1].numel()
        return EmbeddingParts(
            plan=served,
            tables={served.tables[0].name: torch.cat(values).unsqueeze(1)},
            remaps=remaps,
            combiners={entry.feature.name: Concat() for entry in entries},
        )

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """Zero weights while training, if `during_training`; the same share of them as is dropped in the end."""
        served = self.serving_plan(plan)
        pruned = [e.feature.name for e in served.features if e.remap.target == Component.of(PrunedRemap).target]
        if not self.during_training or not pruned:
            return []
        tables = tuple(plan.of(pruned).tables)
        weights = sum(table.num_embeddings * table.embedding_dim for table in tables)
        kept = served.of(pruned).tables[0].num_embeddings - 1
        return [MagnitudePruning(config=self, tables=tables, target=1 - kept / weights)]


@dataclass
class MagnitudePruning(Callback):
    """Zeroes the smallest weights of some tables, S * (1 - 0.99 ** (t / damping)) of all at step t; S is the target.

    Each time every rank reads all rows of these tables, a block after the other, so a step of it costs as much time as
    to send all tables to every rank: 4 GB for a billion weights. Make `every` larger where that is much of the
    training. Memory does not grow with the tables: the threshold comes from a sample of rows.

    What is zeroed depends on the step and the weights alone, so a restart needs no state.
    """

    config: PruneConfig
    tables: tuple[TableSpec, ...]
    target: float  # share of the weights that are zero in the end

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Prune every `every` steps, once the model is warm."""
        passed = step - self.config.warm_up_steps
        if passed > 0 and passed % self.config.every == 0:
            self.prune(session, self.target * (1 - 0.99 ** (passed / self.config.damping_steps)))

    def prune(self, session: TrainingSession, share: float) -> None:
        """Zero about the smallest `share` of all weights; only rows that change are written."""
        threshold = self._threshold(session, share)
        for table in self.tables:
            for rows in torch.arange(table.num_embeddings, device=session.device).split(ROWS_AT_ONCE):
                values = session.read_rows(table.name, rows)
                pruned = torch.where(values.abs() < threshold, 0.0, values)
                changed = (pruned != values).any(1).nonzero().squeeze(1)
                # A collective call, so every rank makes it, and all of them see the same rows.
                if changed.numel():
                    session.write_rows(table.name, rows[changed], pruned[changed], forget=False)

    def _threshold(self, session: TrainingSession, share: float) -> Tensor:
        """Magnitude that `share` of the weights of evenly spaced rows lie below; float32 scalar."""
        step = -(-sum(table.num_embeddings * table.embedding_dim for table in self.tables) // SAMPLED_WEIGHTS)
        sizes = [
            session.read_rows(t.name, torch.arange(0, t.num_embeddings, step, device=session.device)).abs().reshape(-1)
            for t in self.tables
        ]
        sampled = torch.cat(sizes)
        return sampled.kthvalue(min(int(share * sampled.numel()) + 1, sampled.numel())).values


def largest(values: Tensor, count: int) -> Tensor:
    """Mark the `count` values of largest magnitude, of equal ones the first; bool, shape (N,)."""
    if count >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    sizes = values.abs()
    threshold = sizes.kthvalue(sizes.numel() - count + 1).values
    above, equal = sizes > threshold, sizes == threshold
    return above | (equal & (equal.cumsum(0) <= count - above.sum()))


def _bitmap_rows(features: Sequence[FeatureSpec], num_rows: int) -> dict[FeatureSpec, int]:
    """Rows with bitmaps of each feature when the most frequent `num_rows` ids have some: whole blocks."""
    rounded = [-(-max(count, 1) // BLOCK_ROWS) * BLOCK_ROWS for count in heads(features, num_rows)]
    return {feature: min(count, num_ids(feature)) for feature, count in zip(features, rounded, strict=True)}


def _num_kept(rows: Mapping[FeatureSpec, int], budget_bytes: int) -> tuple[int, bool]:
    """(weights that fit beside the bitmaps of so many rows, whether these are enough for so many rows)."""
    blocks = {feature: -(-count // BLOCK_ROWS) for feature, count in rows.items()}
    bitmaps = sum(n * (BLOCK_ROWS * feature.embedding_dim // 8 + START_BYTES) for feature, n in blocks.items())
    weights = sum(count * feature.embedding_dim for feature, count in rows.items())
    kept = min(max((budget_bytes - bitmaps) // FLOAT_BYTES - 1, 0), weights)
    return kept, kept * DENSEST >= weights


def _pruned_plan(rows: Mapping[FeatureSpec, int], num_kept: int) -> TablePlan:
    table = TableSpec(name=f"kept_{next(iter(rows)).name}", num_embeddings=num_kept + 1, embedding_dim=1)
    entries = []
    for feature, count in rows.items():
        width = feature.embedding_dim
        remap = Component.of(PrunedRemap, num_rows=count, embedding_dim=width, num_values=num_kept + 1)
        combiner = Component.of(Concat)
        entries.append(FeaturePlan(feature=feature, tables=(table.name,) * width, remap=remap, combiner=combiner))
    return TablePlan(tables=(table,), features=tuple(entries))
