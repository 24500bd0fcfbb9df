"""`ServingModel`: raw border tensors to logits and probabilities, with ATen and `quantized` operators only.

Legend: B rows, N ids of a feature over all rows, T look-ups of a feature, D width of a table.
"""

# mypy: disable-error-code="operator"
# An encoder's method `weights`: TorchScript takes a comment on the line itself for a type.

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.modules import is_linear
from recsys.core.padding import padded
from recsys.core.parts import EmbeddingParts
from recsys.core.specs import Pooling, Read
from recsys.export.border import BorderCheck
from recsys.export.serving_tables import joined_bags, sum_bags, table_module


class Pool(nn.Module):
    """What is left to do with one read after its feature's combiner, decided when the model is built."""

    def __init__(self, read: Read, *, combined_per_id: bool) -> None:
        super().__init__()
        self.combined_per_id = combined_per_id
        self.single_valued = read.max_length == 1
        self.mean = read.pooling is Pooling.MEAN
        self.weighted = read.pooling is Pooling.WEIGHTED

    def forward(self, combined: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Pool (N, D) embeddings of ids, or finish (B, D) sums, to (B, D); `weights` (N,) where ids have any."""
        if self.weighted:
            return sum_bags(combined * weights.unsqueeze(1), offsets)
        # A feature of at most one id a row is pooled as it is when there are as many ids as rows.
        if self.combined_per_id and not (self.single_valued and combined.size(0) + 1 == offsets.size(0)):
            combined = sum_bags(combined, offsets)
        if self.mean and not self.single_valued:
            lengths = (offsets[1:] - offsets[:-1]).clamp(min=1)
            combined = combined / lengths.unsqueeze(1)
        return combined


class ServingEmbeddings(nn.Module):
    """All embeddings of a plan, with one `embedding_bag` per physical table.

    Linear combiners are applied to pooled rows. Others, and those of sequences, are applied per id (bags of one id
    each), and pooled afterwards.
    """

    sources: list[list[int]]  # by feature and read: position of its ids in the encoder's output
    is_sequence: list[bool]  # by read
    first_lookup: list[int]  # by feature, and one more: number of its first look-up in plan order
    per_id: list[bool]  # by feature: look up bags of one id each
    table_lookups: list[list[int]]  # by table: look-ups that read it

    def __init__(self, parts: EmbeddingParts, sources: Sequence[str]) -> None:
        super().__init__()
        plan, combiners = parts.plan, parts.combiners
        names = [entry.feature.name for entry in plan.features]
        reads = [entry.feature.reads for entry in plan.features]
        self.remaps = nn.ModuleList([parts.remaps[name] for name in names])
        self.combiners = nn.ModuleList([combiners[name] for name in names])
        self.tables = nn.ModuleList([table_module(parts.tables[spec.name], spec) for spec in plan.tables])
        self.per_id = [
            not is_linear(combiners[name]) or any(read.pooling in (Pooling.NONE, Pooling.WEIGHTED) for read in own)
            for name, own in zip(names, reads, strict=True)
        ]
        self.is_weighted = any(read.pooling is Pooling.WEIGHTED for own in reads for read in own)
        self.is_sequence = [read.pooling is Pooling.NONE for own in reads for read in own]
        self.pools = nn.ModuleList(
            Pool(read, combined_per_id=per_id) for per_id, own in zip(self.per_id, reads, strict=True) for read in own
        )
        self.sources = [[list(sources).index(read.source) for read in own] for own in reads]
        looked_up = [name for entry in plan.features for name in entry.tables]
        self.table_lookups = [[i for i, name in enumerate(looked_up) if name == spec.name] for spec in plan.tables]
        counts = torch.tensor([0] + [len(entry.tables) for entry in plan.features])
        self.first_lookup = counts.cumsum(0).tolist()

    def forward(
        self, ids: list[Tensor], offsets: list[Tensor], weights: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Embed ids (N,) with offsets (B + 1,) and weights, (N,) where they are read, per source column.

        Returns:
            Of each read that is pooled float32 (B, embedding_dim), in plan order; of each sequence float32
            (B, L, embedding_dim), padded with zeros to the longest row; and the sequences' lengths, int64 (B,).
        """
        joined_ids: list[Tensor] = []
        rows: list[Tensor] = []
        bags: list[Tensor] = []
        for f, remap in enumerate(self.remaps):
            own_ids, own_bags = self._joined(f, ids, offsets)
            if self.per_id[f]:
                own_bags = torch.arange(own_ids.size(0) + 1, device=own_ids.device)
            for own_rows in remap(own_ids).unbind(0):
                rows.append(own_rows)
                bags.append(own_bags)
            joined_ids.append(own_ids)
        looked_up = self._look_up(rows, bags)
        combined: list[Tensor] = []
        for f, combiner in enumerate(self.combiners):
            own = combiner(joined_ids[f], looked_up[self.first_lookup[f] : self.first_lookup[f + 1]])
            for source in self.sources[f]:
                size = ids[source].size(0) if self.per_id[f] else offsets[source].size(0) - 1
                combined.append(own[:size])
                own = own[size:]
        return self._pooled(combined, offsets, weights)

    def _joined(self, feature: int, ids: list[Tensor], offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Ids and offsets of all reads of a feature, one column after the other."""
        sources = self.sources[feature]
        return joined_bags([ids[source] for source in sources], [offsets[source] for source in sources])

    def _pooled(
        self, combined: list[Tensor], offsets: list[Tensor], weights: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The outputs of all reads, from their embeddings by id or by row."""
        read_offsets: list[Tensor] = []
        read_weights: list[Tensor] = []
        for sources in self.sources:
            for source in sources:
                read_offsets.append(offsets[source])
                read_weights.append(weights[source])
        pooled: list[Tensor] = []
        sequences: list[Tensor] = []
        lengths: list[Tensor] = []
        for r, pool in enumerate(self.pools):
            if self.is_sequence[r]:
                own_lengths = read_offsets[r].diff()
                sequences.append(padded(combined[r], own_lengths))
                lengths.append(own_lengths)
            else:
                pooled.append(pool(combined[r], read_offsets[r], read_weights[r]))
        return pooled, sequences, lengths

    def _look_up(self, rows: list[Tensor], bags: list[Tensor]) -> list[Tensor]:
        """Sum the rows of each bag of each look-up, all look-ups of a table at once; (bags, D) in look-up order."""
        looked_up = list(rows)  # placeholders, replaced below: every look-up reads one table
        for t, table in enumerate(self.tables):
            lookups = self.table_lookups[t]
            own_rows, own_bags = joined_bags([rows[lookup] for lookup in lookups], [bags[lookup] for lookup in lookups])
            sizes = [bags[lookup].size(0) - 1 for lookup in lookups]
            for lookup, part in zip(lookups, table(own_rows, own_bags).split(sizes), strict=False):
                looked_up[lookup] = part
        return looked_up


class ServingModel(nn.Module):
    """Raw values to logits and probabilities, checks included. All parts must script with ATen operators only."""

    reads_sequences: Final[bool]
    reads_weights: Final[bool]

    def __init__(
        self,
        border: BorderCheck,
        encoder: nn.Module,
        embeddings: ServingEmbeddings,
        head: nn.Module,
        probabilities: nn.Module,
    ) -> None:
        """`probabilities`: logits -> probabilities of the same shape; the sigmoid, or a calibration in its place.

        Where labels are numbers it maps outputs to predictions.
        """
        super().__init__()
        self.reads_sequences = any(embeddings.is_sequence)
        self.reads_weights = embeddings.is_weighted
        self.border = border
        self.encoder = encoder
        self.embeddings = embeddings
        self.head = head
        self.probabilities = probabilities

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score B rows.

        Args:
            features: the border tensors by name.

        Returns:
            (logits, probabilities), or (outputs, predictions) where labels are numbers: float32 (B,) each, or (B, T)
            where the head tells of T tasks.

        Raises:
            RuntimeError: an input is missing or of the wrong type or shape; the message names it.
        """
        self.border(features)
        dense, ids, offsets = self.encoder(features)
        weights = [dense.new_empty(0) for _ in ids]
        if self.reads_weights:
            weights = self.encoder.weights(features)
        pooled, sequences, lengths = self.embeddings(ids, offsets, weights)
        if len(pooled) == 0:
            pooled.append(dense.new_zeros((dense.size(0), 0)))
        embeddings = torch.cat(pooled, dim=1)
        if self.reads_sequences:
            for others in lengths[1:]:
                if not torch.equal(others, lengths[0]):
                    raise RuntimeError("histories of one row must be equally long: one value of each for every event.")
            logits = self.head(dense, embeddings, sequences, lengths)
        else:
            logits = self.head(dense, embeddings)
        return logits, self.probabilities(logits)
