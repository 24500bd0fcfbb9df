"""DIN's mini-batch-aware regularisation: L2 of the ids that a batch holds, each divided by how often training has it.

Whole-table L2 touches every row at every step, which fused tables cannot do and frequent ids do not need. This one adds

    (strength / 2) * sum over the distinct ids j of the global batch of |e_j|^2 / n_j

to a step's mean loss. Over an epoch an id pays once where it is rare, and less where a batch has it several times; ids
that are not in a batch stay as they are. e_j is the id's embedding, whatever the method makes it from, so gradients
reach shared rows, codebooks and networks alike; with full tables it is the id's row.
Source: Zhou et al., Deep Interest Network, KDD 2018, arXiv:1706.06978, eq. 6 and 7, whose gradient has no factor 2.
"""

import logging
from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection
from recsys.embeddings.pooling import one_id_per_row

logger = logging.getLogger(__name__)

MAX_IDS = 2**40
"""Ids of one feature lie below it, so that feature and id fit into one integer."""


class BatchRegularizer(Callback):
    """Adds the penalty of this rank's ids to its loss.

    A column of several ids that are summed by the table look-up has no embedding of one id, and is left out: histories
    of sequence models are not pooled, and a user or an item is a single id.
    """

    def __init__(self, strength: float, plan: TablePlan) -> None:
        """Take lambda, above 0, and the plan that is trained.

        Raises:
            ConfigError: a feature has no vocabulary, so how often training has an id is not known.
        """
        self._strength = strength
        self._shares = {e.feature.name: inverse_counts(e.feature) for e in plan.features}
        self._entries: dict[str, tuple[FeaturePlan, bool]] = {}  # and whether it is looked up id by id
        self._embeddings: dict[str, Tensor] = {}
        self._by_source: dict[str, JaggedTensor] = {}

    def on_train_start(self, session: TrainingSession) -> None:
        """Listen to the combiners."""
        for entry, combiner, per_id in _single_ids(session.model):
            self._entries[entry.feature.name] = (entry, per_id)
            combiner.register_forward_hook(partial(self._keep, entry.feature.name))
        left_out = sorted(self._shares.keys() - self._entries.keys())
        if session.is_main and left_out:
            logger.info("not regularized, because their ids are summed before they are seen: %s", ", ".join(left_out))

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Keep the batch's ids."""
        self._by_source = batch.sparse.to_dict()

    def penalty(self, session: TrainingSession, rows: int) -> Tensor | None:
        """This rank's share: an id that several ranks have counts a part on each."""
        keys, shares, squares = [], [], []
        for number, (name, embeddings) in enumerate(sorted(self._embeddings.items())):
            ids, there = self._ids(*self._entries[name])
            keys.append(ids[there] + number * MAX_IDS)
            shares.append(_at(self._shares[name].to(ids.device), ids[there]))
            squares.append(embeddings.float().square().sum(1)[there])
        self._embeddings.clear()
        if not keys:
            return None
        distinct, places, counts = torch.cat(keys).unique(return_inverse=True, return_counts=True)
        counted = counts * _num_ranks_with(distinct, session.world_size)
        penalty: Tensor = self._strength / 2 * (torch.cat(squares) * torch.cat(shares) / counted[places]).sum()
        return penalty

    def _ids(self, entry: FeaturePlan, per_id: bool) -> tuple[Tensor, Tensor]:
        """Id of each of the feature's embeddings, and which of these are of an id: padding rows have none."""
        columns = [self._by_source[read.source] for read in entry.feature.reads]
        if per_id:
            ids = torch.cat([column.values() for column in columns])
            return ids, torch.ones_like(ids, dtype=torch.bool)
        return torch.cat([one_id_per_row(c) for c in columns]), torch.cat([c.lengths() > 0 for c in columns])

    def _keep(self, name: str, combiner: nn.Module, _inputs: object, embeddings: Tensor) -> None:
        if combiner.training and torch.is_grad_enabled():
            self._embeddings[name] = embeddings


def inverse_counts(feature: FeatureSpec) -> Tensor:
    """1 / n of an id by its octave, float32 (number of octaves + 1,): 0 for id 0, then that of ids in [1, 2), [2, 4).

    Ids rank by frequency, and a manifest has the look-ups of each octave: n is their mean over the octave's ids, and at
    least 1. Id 0 stands for many keys that are too rare for ids of their own: nothing says how often each occurs.

    Raises:
        ConfigError: the feature has no vocabulary.
    """
    if feature.num_embeddings is None:
        raise ConfigError(
            f"model.batch_regularizer: column {feature.source!r} has no vocabulary (encoding: hash), so how often "
            "training has an id is not known. Set it to 0, or give the column a vocabulary."
        )
    sizes = [min(2 ** (k + 1), feature.num_embeddings) - 2**k for k in range(len(feature.octave_counts))]
    means = [count / size for count, size in zip(feature.octave_counts, sizes, strict=True)]
    return torch.tensor([0.0, *(1 / max(mean, 1.0) for mean in means)])


def _at(shares: Tensor, ids: Tensor) -> Tensor:
    """The values of `inverse_counts` at ids."""
    starts = 2 ** torch.arange(shares.numel() - 1, device=ids.device)
    return shares[torch.bucketize(ids, starts, right=True)]


def _num_ranks_with(keys: Tensor, world_size: int) -> Tensor:
    """How many ranks hold each of this rank's distinct keys, int64 (K,) as they are."""
    if world_size == 1:
        return torch.ones_like(keys)
    sizes = [torch.zeros_like(keys[:0].sum()) for _ in range(world_size)]
    dist.all_gather(sizes, torch.full_like(sizes[0], keys.numel()))
    padded = torch.nn.functional.pad(keys, (0, int(torch.stack(sizes).max()) - keys.numel()), value=-1)
    everyone = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everyone, padded)
    held, counts = torch.cat(everyone).unique(return_counts=True)
    found: Tensor = counts[torch.searchsorted(held, keys)]
    return found


def _single_ids(model: nn.Module) -> Iterator[tuple[FeaturePlan, nn.Module, bool]]:
    """Features whose embeddings are those of single ids, their combiners, and whether they are looked up id by id."""
    for part in model.modules():
        if isinstance(part, (PlannedEmbeddingCollection, PlannedEmbeddingBagCollection)):
            per_id = isinstance(part, PlannedEmbeddingCollection)
            for entry, combiner in zip(part.lookups.entries, part.lookups.combiners, strict=True):
                if per_id or all(read.max_length == 1 for read in entry.feature.reads):
                    yield entry, combiner, per_id
