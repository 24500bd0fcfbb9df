"""`ServingModel`: raw border tensors to logits and probabilities, with ATen and `quantized` operators only.

Legend: B rows, N ids of a feature over all rows, T look-ups of a feature, D width of a table.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.core.modules import is_linear
from recsys.core.parts import EmbeddingParts
from recsys.core.specs import Pooling, RowType, TableSpec
from recsys.export.border import BorderCheck


def sum_bags(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum the values of each bag: (N, D), (bags + 1,) -> (bags, D); an empty bag gives 0."""
    ids = torch.arange(values.size(0), device=values.device)
    # One row of zeros, because embedding_bag refuses a table without rows.
    table = torch.cat([values, values.new_zeros((1, values.size(1)))])
    return torch.embedding_bag(table, ids, offsets, False, 0, False, None, True)[0]


class FloatTable(nn.Module):
    """Rows of float32."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        return torch.embedding_bag(self.weight, rows, offsets, False, 0, False, None, True)[0]


class HalfTable(nn.Module):
    """Rows of float16."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the rows of each bag in float32: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        # embedding_bag would round its sums to float16.
        return sum_bags(self.weight.index_select(0, rows).to(torch.float32), offsets)


class ByteTable(nn.Module):
    """Rows of one byte a value with a float32 scale and bias each."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the dequantized rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(  # type: ignore[no-any-return]
            self.weight, rows, offsets, False, 0, False, None, None, True
        )


class PackedTable(nn.Module):
    """Rows of four or two bits a value with a float16 scale and bias each."""

    weight: Tensor

    def __init__(self, weight: Tensor, embedding_dim: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.embedding_dim = embedding_dim  # the last byte of a row may hold fewer values than it could
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the dequantized rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        if self.bits == 4:
            pooled = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
                self.weight, rows, offsets, False, 0, False, None, None, True
            )
        else:
            pooled = torch.ops.quantized.embedding_bag_2bit_rowwise_offsets(
                self.weight, rows, offsets, False, 0, False, None, None, True
            )
        values: Tensor = pooled[:, : self.embedding_dim]
        return values


class Pool(nn.Module):
    """What is left to do after a feature's combiner, decided when the model is built."""

    def __init__(self, *, combined_per_id: bool, single_valued: bool, mean: bool) -> None:
        super().__init__()
        self.combined_per_id = combined_per_id
        self.single_valued = single_valued
        self.mean = mean

    def forward(self, combined: Tensor, offsets: Tensor) -> Tensor:
        """Pool (N, D) embeddings of ids, or finish (B, D) sums, to (B, D)."""
        # A feature of at most one id a row is pooled as it is when there are as many ids as rows.
        if self.combined_per_id and not (self.single_valued and combined.size(0) + 1 == offsets.size(0)):
            combined = sum_bags(combined, offsets)
        if self.mean and not self.single_valued:
            lengths = (offsets[1:] - offsets[:-1]).clamp(min=1)
            combined = combined / lengths.unsqueeze(1)
        return combined


class ServingEmbeddings(nn.Module):
    """All embeddings of a plan, with one `embedding_bag` per physical table.

    Linear combiners are applied to pooled rows. Others are applied per id (bags of one id each), then pooled.
    """

    sources: list[int]  # by feature: position of its ids in the encoder's output
    first_lookup: list[int]  # by feature, and one more: number of its first look-up in plan order
    per_id: list[bool]  # by feature: look up bags of one id each
    table_lookups: list[list[int]]  # by table: look-ups that read it

    def __init__(self, parts: EmbeddingParts, sources: Sequence[str]) -> None:
        super().__init__()
        plan, combiners = parts.plan, parts.combiners
        names = [entry.feature.name for entry in plan.features]
        self.remaps = nn.ModuleList([parts.remaps[name] for name in names])
        self.combiners = nn.ModuleList([combiners[name] for name in names])
        self.tables = nn.ModuleList([_table_module(parts.tables[spec.name], spec) for spec in plan.tables])
        self.per_id = [not is_linear(combiners[name]) for name in names]
        self.pools = nn.ModuleList(
            Pool(
                combined_per_id=per_id,
                single_valued=entry.feature.single_valued,
                mean=entry.feature.pooling is Pooling.MEAN,
            )
            for per_id, entry in zip(self.per_id, plan.features, strict=True)
        )
        self.sources = [list(sources).index(entry.feature.source) for entry in plan.features]
        read = [name for entry in plan.features for name in entry.tables]
        self.table_lookups = [[i for i, name in enumerate(read) if name == spec.name] for spec in plan.tables]
        counts = torch.tensor([0] + [len(entry.tables) for entry in plan.features])
        self.first_lookup = counts.cumsum(0).tolist()

    def forward(self, ids: list[Tensor], offsets: list[Tensor]) -> list[Tensor]:
        """Embed ids (N,) with offsets (B + 1,) per source column; float32 (B, embedding_dim) per feature."""
        rows: list[Tensor] = []
        bags: list[Tensor] = []
        for f, remap in enumerate(self.remaps):
            source = self.sources[f]
            own_bags = offsets[source]
            if self.per_id[f]:
                own_bags = torch.arange(ids[source].size(0) + 1, device=ids[source].device)
            for own_rows in remap(ids[source]).unbind(0):
                rows.append(own_rows)
                bags.append(own_bags)
        looked_up = self._look_up(rows, bags)
        embeddings: list[Tensor] = []
        for f, (combiner, pool) in enumerate(zip(self.combiners, self.pools, strict=False)):
            source = self.sources[f]
            combined = combiner(ids[source], looked_up[self.first_lookup[f] : self.first_lookup[f + 1]])
            embeddings.append(pool(combined, offsets[source]))
        return embeddings

    def _look_up(self, rows: list[Tensor], bags: list[Tensor]) -> list[Tensor]:
        """Sum the rows of each bag of each look-up, all look-ups of a table at once; (bags, D) in look-up order."""
        looked_up = list(rows)  # placeholders, replaced below: every look-up reads one table
        for t, table in enumerate(self.tables):
            lookups = self.table_lookups[t]
            if len(lookups) == 1:
                looked_up[lookups[0]] = table(rows[lookups[0]], bags[lookups[0]])
            else:
                starts: list[Tensor] = []
                sizes: list[int] = []
                base = 0
                for lookup in lookups:
                    starts.append(bags[lookup][:-1] + base)
                    sizes.append(bags[lookup].size(0) - 1)
                    base += rows[lookup].size(0)
                starts.append(torch.full((1,), base, dtype=torch.int64, device=rows[0].device))
                pooled = table(torch.cat([rows[lookup] for lookup in lookups]), torch.cat(starts))
                for lookup, part in zip(lookups, pooled.split(sizes), strict=False):
                    looked_up[lookup] = part
        return looked_up


class ServingModel(nn.Module):
    """Raw values to logits and probabilities, checks included. All parts must script with ATen operators only."""

    def __init__(self, border: BorderCheck, encoder: nn.Module, embeddings: ServingEmbeddings, head: nn.Module) -> None:
        super().__init__()
        self.border = border
        self.encoder = encoder
        self.embeddings = embeddings
        self.head = head

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score B rows.

        Args:
            features: the border tensors by name.

        Returns:
            (logits, probabilities): float32 (B,) each.

        Raises:
            RuntimeError: an input is missing or of the wrong type or shape; the message names it.
        """
        self.border(features)
        dense, ids, offsets = self.encoder(features)
        embeddings = self.embeddings(ids, offsets)
        if len(embeddings) == 0:
            embeddings.append(dense.new_zeros((dense.size(0), 0)))
        logits = self.head(dense, torch.cat(embeddings, dim=1))
        return logits, torch.sigmoid(logits)


def _table_module(weight: Tensor, spec: TableSpec) -> nn.Module:
    if spec.row_type is RowType.INT8:
        return ByteTable(weight)
    if spec.row_type in (RowType.INT4, RowType.INT2):
        return PackedTable(weight, spec.embedding_dim, spec.row_type.bits)
    return HalfTable(weight) if spec.row_type is RowType.FLOAT16 else FloatTable(weight)
