"""Which look-ups a plan cannot tell apart: ids whose complete row tuple is another id's too, by how often they come.

Counted from the remaps themselves, before any training. What training moves (a hot map, learned pointers) is counted
as it starts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from recsys.core.modules import Combiner
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec
from recsys.ops.hashing import GOLDEN_GAMMA, mix64

CHUNK = 1 << 18
"""Ids given to a remap at once."""

PROBED = 512
"""Ids of an octave that stand for all of it: a share of them is off by 2 % or so. Also those that show whether a
combiner reads ids."""


@dataclass(frozen=True, kw_only=True)
class Collisions:
    """Shares of training look-ups, 0 to 1; None where the embedding is computed from the id and reads no row."""

    same_feature: float | None  # the id's rows are all rows of another id of the feature too: indistinguishable
    any_feature: float | None  # or of an id of a feature that reads the same tables, which a model can tell apart
    as_unknown: float | None  # the id's rows are those of id 0, which stands for all that training did not see
    exact: bool  # every id was looked at; else some of each octave stand for the rest


def collisions(plan: TablePlan, *, max_ids: int, oov_counts: Mapping[str, int]) -> dict[str, Collisions]:
    """Expected share of look-ups that collide, by feature name.

    Args:
        plan: as trained.
        max_ids: up to so many ids of a feature, each is looked at. Of a larger vocabulary some of every octave are,
            against all its ids still.
        oov_counts: training look-ups of id 0 by source; absent means none.
    """
    found: dict[str, Collisions] = {}
    groups: dict[tuple[str, ...], list[FeaturePlan]] = {}
    for entry in plan.features:
        groups.setdefault(entry.tables, []).append(entry)
    with torch.random.fork_rng(devices=[]):  # building parts draws their initial weights
        for tables, entries in groups.items():
            if tables:
                found |= _of_group(entries, plan, max_ids, oov_counts)
            else:
                none = Collisions(same_feature=None, any_feature=None, as_unknown=None, exact=False)
                found |= {entry.feature.name: none for entry in entries}
    return found


def _of_group(
    entries: Sequence[FeaturePlan], plan: TablePlan, max_ids: int, oov_counts: Mapping[str, int]
) -> dict[str, Collisions]:
    probes = [_probes(entry.feature, max_ids) for entry in entries]
    readers = [_reader(entry, plan) for entry in entries]
    keys = [read(_ids(e.feature, ranks)) for e, read, ranks in zip(entries, readers, probes, strict=True)]
    known = torch.cat(keys).unique()
    counts = []
    for entry, read, own_keys in zip(entries, readers, keys, strict=True):
        size = num_keys(entry.feature)
        # Where all ids are probes, their keys are there already.
        parts = [own_keys] if len(own_keys) == size else (read(_ids(entry.feature, p)) for p in _parts(size))
        counts.append(sum((_occurrences(known, part) for part in parts), torch.zeros(len(known), dtype=torch.int64)))
    total = torch.stack(counts).sum(0)
    found = {}
    for entry, ranks, own_keys, own in zip(entries, probes, keys, counts, strict=True):
        as_unknown = own_keys == own_keys[0]
        as_unknown[0] = False  # that is id 0; hashed keys have none, and none of theirs is read as it
        at, weights = torch.searchsorted(known, own_keys), _weights(entry.feature, oov_counts)
        found[entry.feature.name] = Collisions(
            same_feature=_share(own[at] > 1, ranks, weights),
            any_feature=_share(total[at] > 1, ranks, weights),
            as_unknown=_share(as_unknown & (entry.feature.num_embeddings is not None), ranks, weights),
            exact=len(ranks) == num_keys(entry.feature),
        )
    return found


def mean_share(found: Mapping[str, Collisions], features: Sequence[FeatureSpec]) -> float | None:
    """Share of all look-ups that collide within their feature; None where no feature reads rows."""
    known = [(found[f.name].same_feature, max(sum(f.octave_counts), 1)) for f in features]
    counted = [(share, weight) for share, weight in known if share is not None]
    total = sum(weight for _, weight in counted)
    return sum(share * weight for share, weight in counted) / total if total else None


def num_keys(feature: FeatureSpec) -> int:
    """Ids that training saw: the vocabulary, or for hashed keys about the distinct ones, by the last octave's count."""
    if feature.num_embeddings is not None:
        return feature.num_embeddings
    octaves = len(feature.octave_counts)
    return 1 + min(2**octaves, 2 ** (octaves - 1) + feature.octave_counts[-1]) if octaves else 2


def _probes(feature: FeatureSpec, max_ids: int) -> Tensor:
    """Ranks by frequency, int64, ascending: all, or up to `PROBED` of every octave."""
    size = num_keys(feature)
    if size <= max_ids:
        return torch.arange(size)
    generator = torch.Generator().manual_seed(0)
    bounds = [0, *(2**k for k in range(size.bit_length())), size]
    parts = [
        torch.arange(low, high)
        if high - low <= PROBED
        else torch.randint(low, high, (PROBED,), generator=generator).unique()
        for low, high in pairwise(bounds)
    ]
    return torch.cat(parts)


def _ids(feature: FeatureSpec, ranks: Tensor) -> Tensor:
    """Ids of some ranks. Hashed keys are any 64-bit number: scrambled ranks stand for them."""
    return ranks if feature.num_embeddings is not None else mix64(ranks + 1)


def _parts(size: int) -> Iterator[Tensor]:
    return (torch.arange(low, min(low + CHUNK, size)) for low in range(0, size, CHUNK))


def _occurrences(known: Tensor, keys: Tensor) -> Tensor:
    """How often each of the ascending `known` numbers is among `keys`."""
    at = torch.searchsorted(known, keys).clamp_(max=len(known) - 1)
    return torch.bincount(at[known[at] == keys], minlength=len(known))


def _reader(entry: FeaturePlan, plan: TablePlan) -> Callable[[Tensor], Tensor]:
    """A number for each id (N,), int64 (N,): equal where all rows are, and what the combiner makes of the id itself."""
    remap, reader = entry.remap.build(), _id_reader(entry, plan)

    @torch.no_grad()
    def read(ids: Tensor) -> Tensor:
        parts = [[*remap(part), *([reader(part)] if reader else [])] for part in ids.split(CHUNK)]
        return torch.cat([_fold(part) for part in parts])

    return read


def _fold(columns: Sequence[Tensor]) -> Tensor:
    """One number for each position of int64 columns (N,), equal only where all of them are."""
    keys = columns[0]
    for row in columns[1:]:
        keys = mix64(keys + GOLDEN_GAMMA) + row
    return keys


@torch.no_grad()
def _id_reader(entry: FeaturePlan, plan: TablePlan) -> Callable[[Tensor], Tensor] | None:
    """What the combiner makes of ids (N,) that all read the same rows, int64 (N,); None if it does not read ids."""
    combiner = entry.combiner.build()
    assert isinstance(combiner, Combiner)
    if combiner.linear:
        return None
    widths = [plan.table(name).embedding_dim for name in entry.tables]
    rows = [torch.randn(1, width) for width in widths]
    for parameter in combiner.parameters():
        parameter.normal_()  # weights of ids may start equal, and training drives them apart

    def read(ids: Tensor) -> Tensor:
        combined = combiner(ids, [row.expand(len(ids), -1) for row in rows])
        rounded = (combined.double() * 2**20).round().long()  # sums may differ in their last bits by position
        return _fold(list(rounded.T))

    probe = read(_ids(entry.feature, torch.arange(min(num_keys(entry.feature), PROBED))))
    return read if bool((probe != probe[0]).any()) else None


def _weights(feature: FeatureSpec, oov_counts: Mapping[str, int]) -> list[tuple[int, int, float]]:
    """(first rank, one past the last, look-ups) of runs of ids that come about equally often."""
    size = num_keys(feature)
    if not feature.octave_counts:
        return [(0, size, 1.0)]
    runs = [(0, 1, float(oov_counts.get(feature.source, 0)))]
    runs += [(2**k, min(2 ** (k + 1), size), float(count)) for k, count in enumerate(feature.octave_counts)]
    return [run for run in runs if run[0] < run[1] and run[2] > 0]


def _share(colliding: Tensor, ranks: Tensor, weights: Sequence[tuple[int, int, float]]) -> float:
    """Mean of `colliding` (N,) by look-ups; `ranks` (N,) says which ids these are."""
    total = 0.0
    for low, high, count in weights:
        begin, end = (int(torch.searchsorted(ranks, bound)) for bound in (low, high))
        total += count * float(colliding[begin:end].double().mean())
    return total / max(math.fsum(count for _, _, count in weights), 1.0)
