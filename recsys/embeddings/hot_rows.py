"""Private rows that change hands while training: the remap, the combiner and the callback of `cafe`."""

import base64
import zlib
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.embeddings.collection import PlannedEmbeddingCollection, parts_in
from recsys.embeddings.frequency import densities
from recsys.embeddings.lookups import joined
from recsys.embeddings.method import builds
from recsys.ops.hashing import hash_rows
from recsys.ops.hot_sketch import HotSketch

UNIT = 1 << 16
"""Importance of one row of a batch: the look-ups of a feature in a batch of B rows sum to B of these."""

MAX_SCORE = 1 << 56
"""Of a prior; leaves the sketch room to add."""


class HotRemap(Remap):
    """Row `first_private + hot_rows[k]` for the id `hot_ids[k]`, one of the hashed rows [0, num_shared) for others.

    `hot_ids` ascend; unused entries come last, with row -1. The smallest integer types that fit are stored: 4 to 8
    bytes a private row with a vocabulary, 10 or 12 without.
    """

    hot_ids: Tensor
    hot_rows: Tensor
    salt: Tensor

    def __init__(self, num_shared: int, first_private: int, num_private: int, num_ids: int, salt: int) -> None:
        """Start with the first ids of a vocabulary in the private rows, in order; with all rows unused without one.

        Args:
            num_shared: rows for hashed ids, >= 1.
            first_private: row of the table.
            num_private: how many rows.
            num_ids: size of the vocabulary, at least `num_private`; 0 if there is none.
            salt: of the hash.
        """
        super().__init__()
        self.num_shared, self.first_private, self.num_private = num_shared, first_private, num_private
        self.num_ids = num_ids
        id_type = _smallest_type(num_ids - 1) if num_ids else torch.int64
        row_type = _smallest_type(num_private - 1)
        ids = torch.arange(num_private, dtype=id_type)
        rows = torch.arange(num_private, dtype=row_type)
        if not num_ids:
            ids, rows = ids.fill_(torch.iinfo(id_type).max), rows.fill_(-1)
        self.register_buffer("hot_ids", ids)
        self.register_buffer("hot_rows", rows)
        self.register_buffer("salt", torch.tensor([salt], dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (1, N)."""
        hashed = hash_rows(ids, self.salt, self.num_shared)
        if self.num_private == 0:
            return hashed
        sought = ids.to(self.hot_ids.dtype)
        place = torch.searchsorted(self.hot_ids, sought).clamp_(max=self.num_private - 1)
        row = self.hot_rows[place].to(torch.int64)
        hot = (self.hot_ids[place] == sought).logical_and_(row >= 0)
        return torch.where(hot, row + self.first_private, hashed)

    def rows_needed(self) -> list[int] | None:
        """Up to the last private row, or the last shared one."""
        return [max(self.num_shared, self.first_private + self.num_private)]

    def assign(self, places: Tensor, ids: Tensor) -> None:
        """Give private rows (counted from 0) to ids; who held them reads the hashed row again."""
        used = self.hot_rows >= 0
        owners = torch.zeros(self.num_private, dtype=torch.int64, device=ids.device)
        owned = torch.zeros(self.num_private, dtype=torch.bool, device=ids.device)
        held = self.hot_rows[used].to(torch.int64)
        owners[held], owned[held] = self.hot_ids[used].to(torch.int64), True
        owners[places], owned[places] = ids, True
        rows = owned.nonzero().squeeze(1)
        rows = rows[owners[rows].argsort(stable=True)]
        self.clear()
        self.hot_ids[: len(rows)] = owners[rows].to(self.hot_ids.dtype)
        self.hot_rows[: len(rows)] = rows.to(self.hot_rows.dtype)

    def clear(self) -> None:
        """No id owns a row."""
        self.hot_ids.fill_(torch.iinfo(self.hot_ids.dtype).max)
        self.hot_rows.fill_(-1)


def _smallest_type(largest: int) -> torch.dtype:
    return next(kind for kind in (torch.int16, torch.int32, torch.int64) if largest <= torch.iinfo(kind).max)


class OwnOrShared(Combiner):
    """The row as it is. Not `Only`, whose rows may be read without calling it: `Promotion` watches its output."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return `rows[0]`."""
        return rows[0]


class Promotion(Callback):
    """Scores ids by the norms of their gradients, and gives private rows to those of the highest scores.

    Every rank holds the same sketch: each step they exchange ids and importance, 16 bytes a look-up. The sketch (84
    bytes a private row) is memory of training alone, and no part of the bytes that are served.
    """

    def __init__(self, plan: TablePlan, *, refresh_every: int, half_life: int, prior_epochs: float) -> None:
        """Find the features of the plan that have private rows to give.

        Args:
            plan: of the whole model.
            refresh_every: steps between two promotions.
            half_life: steps after which an importance counts half.
            prior_epochs: how many epochs the training counts of a vocabulary stand for at the start.
        """
        self._refresh_every, self._half_life, self._prior_epochs = refresh_every, half_life, prior_epochs
        self._entries = [entry for entry in plan.features if _capacity(entry) > 0]
        self._sketch = HotSketch([_capacity(entry) for entry in self._entries])
        self._restored = False
        self._norms: dict[str, Tensor] = {}
        self._batch: Batch | None = None
        self._unpooled: set[str] = set()

    def on_train_start(self, session: TrainingSession) -> None:
        """Watch the gradients; before the first step, tell the sketch who owns rows."""
        self._sketch.to(session.device)
        for part in session.model.modules():
            if isinstance(part, PlannedEmbeddingCollection):
                self._unpooled |= {entry.feature.name for entry in part.plan.features}
        parts = parts_in(session.model)
        for number, entry in enumerate(self._entries):
            remap, combiner = parts[entry.feature.name]
            assert isinstance(remap, HotRemap) and isinstance(combiner, OwnOrShared)
            combiner.register_forward_hook(partial(self._watch, entry.feature.name))
            if not self._restored and entry.feature.num_embeddings is not None:
                self._begin(number, entry, remap)

    def _watch(self, name: str, combiner: nn.Module, inputs: object, embeddings: Tensor) -> None:
        if combiner.training and embeddings.requires_grad:
            embeddings.register_hook(partial(self._note, name))

    def _note(self, name: str, gradient: Tensor) -> None:
        self._norms[name] = torch.linalg.vector_norm(gradient, dim=1, dtype=torch.float64)

    def _begin(self, number: int, entry: FeaturePlan, remap: HotRemap) -> None:
        """Hold the places of a feature for its first ids, as the remap does already, with what the prior gives them."""
        if not self._prior_epochs:
            zero = torch.zeros(1, dtype=torch.int64, device=remap.salt.device)
            remap.clear()
            remap.assign(zero, zero)
            return
        scores = torch.zeros(remap.num_private, dtype=torch.float64)
        for low, high, density in densities(entry.feature):
            scores[low:high] = density if entry.feature.octave_counts else 0.0
        prior = (scores * self._prior_epochs * UNIT).clamp(max=MAX_SCORE).to(torch.int64).to(remap.salt.device)
        ids = torch.arange(1, remap.num_private, device=remap.salt.device)
        self._sketch.hold(self._first_place(number) + ids - 1, ids, prior[1:])

    def _first_place(self, number: int) -> int:
        return sum(_capacity(entry) for entry in self._entries[:number])

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Keep the ids of the batch."""
        self._batch = batch
        self._norms.clear()

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Score the ids of the batch; now and then, promote."""
        if self._batch is None or not self._entries:
            return
        ids, norms = zip(*(self._lookups(self._batch, entry) for entry in self._entries), strict=True)
        self._sketch.update(*_exchanged(session, ids, norms, self._batch.labels.shape[0]))
        self._batch = None
        if step % self._refresh_every == 0:
            self._promote(session)
            self._sketch.decay(0.5 ** (self._refresh_every / self._half_life))

    def _lookups(self, batch: Batch, entry: FeaturePlan) -> tuple[Tensor, Tensor]:
        """Ids, and the norm of the gradient of each, (N,)."""
        by_source = batch.sparse.to_dict()
        name, jagged = entry.feature.name, joined([by_source[read.source] for read in entry.feature.reads])
        ids = jagged.values()
        norms = self._norms.get(name)
        if norms is None:  # nothing of the loss depends on it
            norms = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
        elif name not in self._unpooled:  # a sum's gradient is that of each of its ids
            norms = torch.repeat_interleave(norms, jagged.lengths(), output_size=len(ids))
        if entry.feature.num_embeddings is not None:
            norms = norms * (ids != 0)  # out-of-vocabulary has a row anyway
        return ids, norms

    def _promote(self, session: TrainingSession) -> None:
        places, ids = self._sketch.promote()
        moves: dict[str, list[tuple[Tensor, Tensor]]] = {}
        parts = parts_in(session.model)
        for number, entry in enumerate(self._entries):
            own = self._sketch.stream_of[places] == number
            if not bool(own.any()):
                continue
            remap = parts[entry.feature.name][0]
            assert isinstance(remap, HotRemap)
            rows = places[own] - self._first_place(number) + _pinned(entry)
            hashed = hash_rows(ids[own], remap.salt, remap.num_shared)[0]
            moves.setdefault(entry.tables[0], []).append((hashed, rows + remap.first_private))
            remap.assign(rows, ids[own])
        for table, pairs in moves.items():
            sources, targets = (torch.cat(rows) for rows in zip(*pairs, strict=True))
            session.write_rows(table, targets, session.read_rows(table, sources))

    def state_dict(self) -> dict[str, Any]:
        """The sketch."""
        packed = zlib.compress(self._sketch.state().numpy().tobytes(), 1)
        return {"sketch": base64.b64encode(packed).decode()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        packed = zlib.decompress(base64.b64decode(state["sketch"]))
        if self._entries:
            self._sketch.restore(torch.frombuffer(bytearray(packed), dtype=torch.int64))
        self._restored = True


def _pinned(entry: FeaturePlan) -> int:
    """Private rows that never change hands: that of id 0 of a vocabulary."""
    return int(entry.feature.num_embeddings is not None)


def _capacity(entry: FeaturePlan) -> int:
    if not builds(entry.remap, HotRemap):
        return 0
    return max(0, int(entry.remap.params["num_private"]) - _pinned(entry))


def _exchanged(
    session: TrainingSession, ids: tuple[Tensor, ...], norms: tuple[Tensor, ...], num_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Streams, ids and importance of the look-ups of all ranks, int64, equal on all of them.

    Args:
        session: of this rank.
        ids: of each stream.
        norms: of each stream, float64, one an id.
        num_rows: of this rank's share of the batch.
    """
    counts = torch.tensor([*map(len, ids), num_rows], dtype=torch.float64, device=session.device)
    said = torch.stack([counts, torch.stack([*(norm.sum() for norm in norms), counts[-1]])])
    everywhere = torch.stack(_gathered(session, said))  # (W, 2, streams + 1)
    totals = everywhere[:, 1].sum(0)
    scales = UNIT * totals[-1] / totals[:-1].clamp(min=torch.finfo(torch.float64).tiny)
    streams = torch.arange(len(ids), device=session.device)
    own = torch.repeat_interleave(streams, counts[:-1].to(torch.int64))
    importance = (torch.cat(norms) * scales.clamp(max=torch.finfo(torch.float32).max)[own]).round().to(torch.int64)
    if session.world_size == 1:
        return own, torch.cat(ids), importance
    lengths = everywhere[:, 0, :-1].to(torch.int64)
    longest = int(lengths.sum(1).max())
    padded = torch.zeros(2, longest, dtype=torch.int64, device=session.device)
    padded[:, : len(own)] = torch.stack([torch.cat(ids), importance])
    gathered = _gathered(session, padded)
    parts = [part[:, : int(length)] for part, length in zip(gathered, lengths.sum(1), strict=True)]
    all_ids, all_importance = torch.cat(parts, dim=1)
    return torch.cat([torch.repeat_interleave(streams, row) for row in lengths]), all_ids, all_importance


def _gathered(session: TrainingSession, value: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in their order."""
    if session.world_size == 1:
        return [value]
    found = [torch.empty_like(value) for _ in range(session.world_size)]
    dist.all_gather(found, value)
    return found
