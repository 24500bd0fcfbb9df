"""Which ids matter most, in bounded memory: SpaceSaving in buckets of four, for many streams at once.

HotSketch of CAFE (Zhang et al., SIGMOD 2024, arXiv:2312.03256), as tensor operations over whole batches. Scores are
integers: their sums do not depend on order, so all ranks and devices agree on them to the last bit.
"""

import torch
from torch import Tensor

from recsys.ops.hashing import mix64_

SLOTS = 4
"""Of a bucket; c in the paper's bound."""

MIN_BUCKETS = 16
"""Of a stream: one with few places would soon have only buckets that hold no newcomer."""

FREE = -1
"""Score of an empty slot, and slot of a place that nobody holds."""

MARGIN = (6, 5)
"""A newcomer takes a place if its score exceeds this ratio of the holder's, so that near equals do not alternate."""


class HotSketch:
    """Scores of the ids of several streams, and who holds their places.

    Stream s has `capacities[s]` places, numbered on from those of the streams before, and a bucket for each place: an
    id with share g of its stream's importance is kept with probability above 1 - (1 - g) / ((SLOTS - 1) g w), where w
    is the number of buckets (the paper's theorem). Slots whose ids hold places are not given to others.

    84 bytes a place: four slots of an id, a score and a mark; the place's slot and stream.
    """

    def __init__(self, capacities: list[int]) -> None:
        self.capacities = torch.tensor(capacities, dtype=torch.int64)
        self.widths = self.capacities.clamp(min=MIN_BUCKETS)
        self.starts = self.widths.cumsum(0) - self.widths
        num_slots = SLOTS * int(self.widths.sum())
        self.ids = torch.zeros(num_slots, dtype=torch.int64)
        self.scores = torch.full((num_slots,), FREE, dtype=torch.int64)
        self.held = torch.zeros(num_slots, dtype=torch.bool)
        self.slot_of = torch.full((sum(capacities),), FREE, dtype=torch.int64)
        self.stream_of = torch.repeat_interleave(torch.arange(len(capacities)), self.capacities)  # of each place

    def to(self, device: torch.device) -> None:
        """Move all state."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))

    def update(self, streams: Tensor, ids: Tensor, importance: Tensor) -> None:
        """Add a batch.

        Known ids add up. Of the others, the (at most four) most important of a bucket are let in, each into a free
        slot or that of the least score, which it inherits.

        Args:
            streams: int64, shape (N,), number of each look-up's stream.
            ids: int64, shape (N,), any value; ids of two streams are different ids.
            importance: int64, shape (N,), 0 or more; look-ups of importance 0 do nothing.
        """
        buckets = self._buckets(streams, ids)
        slots, places = self._known(buckets, ids)
        self.scores.index_add_(0, slots, importance.index_select(0, places))
        new = importance > 0
        new.index_fill_(0, places, False)
        chosen = new.nonzero().squeeze(1)
        buckets, ids, importance = _sums(*(values.index_select(0, chosen) for values in (buckets, ids, importance)))
        order, ranks = _ranked(buckets, -importance)
        for number in range(SLOTS):
            chosen = order.index_select(0, (ranks == number).nonzero().squeeze(1))
            self._insert(*(values.index_select(0, chosen) for values in (buckets, ids, importance)))

    def _known(self, buckets: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(slots, places in `ids`) of those ids that have a slot, of which each has one."""
        # Whole buckets are gathered: several times as fast as slot by slot. They are compared with ids innermost: loops
        # over four slots do not pay their start.
        same = torch.empty(SLOTS, ids.numel(), dtype=torch.bool, device=ids.device)
        torch.eq(self.ids.view(-1, SLOTS).index_select(0, buckets).t(), ids, out=same)
        used = torch.empty_like(same)
        torch.ge(self.scores.view(-1, SLOTS).index_select(0, buckets).t(), 0, out=used)
        numbers, places = same.logical_and_(used).nonzero(as_tuple=True)
        return buckets.index_select(0, places).mul_(SLOTS).add_(numbers), places

    def _buckets(self, streams: Tensor, ids: Tensor) -> Tensor:
        hashes = mix64_(ids.clone()).bitwise_and_(0x7FFFFFFFFFFFFFFF)
        return hashes.remainder_(self.widths.index_select(0, streams)).add_(self.starts.index_select(0, streams))

    def _insert(self, buckets: Tensor, ids: Tensor, importance: Tensor) -> None:
        """Let in one id a bucket."""
        full = torch.iinfo(torch.int64).max
        scores = self.scores.view(-1, SLOTS).index_select(0, buckets)
        least, place = scores.masked_fill_(self.held.view(-1, SLOTS).index_select(0, buckets), full).min(1)
        free = (least < full).nonzero().squeeze(1)
        chosen = (buckets * SLOTS + place).index_select(0, free)
        self.ids.index_copy_(0, chosen, ids.index_select(0, free))
        self.scores.index_copy_(0, chosen, least.clamp_(min=0).add_(importance).index_select(0, free))

    def hold(self, places: Tensor, ids: Tensor, scores: Tensor) -> None:
        """Give places of an empty sketch to ids; in a bucket of more than four, the last ones stay unknown.

        Args:
            places: int64, shape (R,), distinct; places that then have no slot count as free.
            ids: int64, shape (R,), distinct within a stream, the most important first.
            scores: int64, shape (R,), 0 or more.
        """
        buckets = self._buckets(self.stream_of[places], ids)
        order, ranks = _ranked(buckets, torch.zeros_like(buckets))
        order, ranks = order[ranks < SLOTS], ranks[ranks < SLOTS]
        slots = buckets[order] * SLOTS + ranks
        self.ids[slots], self.scores[slots], self.held[slots] = ids[order], scores[order], True
        self.slot_of[places[order]] = slots

    def promote(self) -> tuple[Tensor, Tensor]:
        """Give places to the ids of the highest scores: the best newcomer for the worst holder, and so on.

        Returns:
            (places, ids): int64, shape (K,), who holds which place from now on; places ascend by stream.
        """
        holders = torch.where(self.slot_of >= 0, self.scores[self.slot_of], FREE)
        slots = self._contenders(holders)
        streams = self._streams(slots)
        best = torch.zeros_like(self.capacities).scatter_reduce_(0, streams, self.scores[slots], "amax")
        places = _beaten(holders, best[self.stream_of]).nonzero().squeeze(1)
        order, ranks = _ranked(streams, -self.scores[slots])
        order_of_places, ranks_of_places = _ranked(self.stream_of[places], holders[places])
        counts = torch.minimum(self._count(streams), self._count(self.stream_of[places]))
        # Both lists are sorted by stream and then by rank: cut to equal lengths in every stream, they are pairs.
        slots = slots[order][ranks < counts[streams[order]]]
        places = places[order_of_places]
        places = places[ranks_of_places < counts[self.stream_of[places]]]
        better = _beaten(holders[places], self.scores[slots])
        return self._swap(places[better], slots[better])

    def _contenders(self, holders: Tensor) -> Tensor:
        """Slots without a place whose score beats the weakest holder of their stream, that of a free place being -1."""
        largest = torch.iinfo(torch.int64).max // MARGIN[0]
        weakest = torch.full_like(self.capacities, largest).scatter_reduce_(0, self.stream_of, holders, "amin")
        slots = (~self.held & (self.scores > 0)).nonzero().squeeze(1)
        return slots[_beaten(weakest[self._streams(slots)], self.scores[slots])]

    def _streams(self, slots: Tensor) -> Tensor:
        return torch.searchsorted(self.starts, slots // SLOTS, right=True) - 1

    def _count(self, streams: Tensor) -> Tensor:
        return torch.bincount(streams, minlength=len(self.capacities))

    def _swap(self, places: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        before = self.slot_of[places]
        self.held[before[before >= 0]] = False
        self.held[slots] = True
        self.slot_of[places] = slots
        return places, self.ids[slots]

    def decay(self, factor: float) -> None:
        """Multiply all scores by `factor` in [0, 1], to 2**-20."""
        share = round(factor * 2**20)
        # In two parts, both exact: the product of a whole score would overflow from 2**43 on.
        kept = (self.scores >> 20) * share + (((self.scores & (2**20 - 1)) * share) >> 20)
        self.scores = torch.where(self.scores > 0, kept, self.scores)

    def state(self) -> Tensor:
        """All that changes, int64, shape (L,), on the CPU; L depends on the capacities alone."""
        return torch.cat([self.ids, self.scores, self.slot_of]).cpu()

    def restore(self, state: Tensor) -> None:
        """Take up what `state` gave."""
        sizes = [self.ids.numel(), self.scores.numel(), self.slot_of.numel()]
        self.ids, self.scores, self.slot_of = (p.clone().to(self.ids.device) for p in state.split(sizes))
        self.held = torch.zeros_like(self.held)
        self.held[self.slot_of[self.slot_of >= 0]] = True


def _beaten(holder: Tensor, newcomer: Tensor) -> Tensor:
    return MARGIN[1] * newcomer > MARGIN[0] * holder


def _sums(buckets: Tensor, ids: Tensor, importance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct (bucket, id), sorted, with the sum of their importance."""
    order = ids.argsort(stable=True)
    order = order.index_select(0, buckets.index_select(0, order).argsort(stable=True))
    buckets, ids = buckets.index_select(0, order), ids.index_select(0, order)
    first = torch.ones_like(ids, dtype=torch.bool)
    first[1:] = (buckets[1:] != buckets[:-1]) | (ids[1:] != ids[:-1])
    starts = first.nonzero().squeeze(1)
    sums = torch.zeros_like(starts).index_add_(0, first.cumsum(0) - 1, importance.index_select(0, order))
    return buckets.index_select(0, starts), ids.index_select(0, starts), sums


def _ranked(groups: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(order by group, then by key, then by position; rank within the group of each of those)."""
    order = keys.argsort(stable=True)
    order = order.index_select(0, groups.index_select(0, order).argsort(stable=True))
    sorted_groups = groups.index_select(0, order)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = sorted_groups[1:] != sorted_groups[:-1]
    starts = first.nonzero().squeeze(1).index_select(0, first.cumsum(0) - 1)
    return order, torch.arange(len(order), device=order.device) - starts
