"""Collections built from a `TablePlan`: drop-ins for TorchRec's `EmbeddingBagCollection` and `EmbeddingCollection`.

Inside are only TorchRec's own collections, so `DistributedModelParallel` shards and fuses them as it always does.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingBagCollectionInterface,
    EmbeddingCollection,
    EmbeddingCollectionInterface,
)
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from recsys.core.errors import DataError
from recsys.core.modules import Combiner, Remap, is_linear
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Pooling, Read, TableSpec
from recsys.embeddings.combiners import Concat, Only
from recsys.embeddings.lookups import Lookups
from recsys.embeddings.pooling import one_id_per_row, sum_pool
from recsys.embeddings.whole_tables import are_rows, whole_tables

ConfigT = TypeVar("ConfigT", EmbeddingBagConfig, EmbeddingConfig)


class PlannedEmbeddingCollection(EmbeddingCollectionInterface):
    """Unpooled: (number of ids, embedding_dim) per feature. TorchRec takes one width only: one collection for each."""

    def __init__(self, plan: TablePlan, device: torch.device | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.lookups = Lookups(plan.features, {table.name: table for table in plan.tables}, device)
        widths = sorted({table.storage_dim for table in plan.tables})
        self.collections = nn.ModuleList(
            EmbeddingCollection(
                tables=[_config(EmbeddingConfig, t, self.lookups) for t in plan.tables if t.storage_dim == width],
                device=device,
            )
            for width in widths
        )

    def forward(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Look up every id.

        Args:
            features: int64 ids, keyed by the columns that features read.

        Returns:
            By name of each read, a JaggedTensor: values (N, embedding_dim) float32, lengths (B,) of its input.
        """
        by_source = features.to_dict()
        inputs = self.lookups.inputs(by_source)
        looked_up: dict[str, Tensor] = {}
        physical = self.lookups.physical(inputs, by_source) if self.lookups.keys else None
        for collection in self.collections:
            looked_up |= {key: jagged.values() for key, jagged in collection(physical).items()}
        embeddings: dict[str, JaggedTensor] = {}
        for number, (entry, jagged) in enumerate(zip(self.plan.features, inputs, strict=True)):
            columns = [by_source[read.source] for read in entry.feature.reads]
            values = self.lookups.combine(number, jagged.values(), looked_up)
            parts = values.split([column.values().numel() for column in columns])
            for read, column, part in zip(entry.feature.reads, columns, parts, strict=True):
                embeddings[read.name] = JaggedTensor(values=part, lengths=column.lengths())
        return embeddings

    def embedding_configs(self) -> list[EmbeddingConfig]:
        """One logical table per feature, as TorchRec code that asks for widths and names expects."""
        return [
            EmbeddingConfig(
                name=entry.feature.name,
                num_embeddings=entry.feature.num_embeddings or 2**63 - 1,
                embedding_dim=entry.feature.embedding_dim,
                feature_names=[read.name for read in entry.feature.reads],
            )
            for entry in self.plan.features
        ]

    def need_indices(self) -> bool:
        """False: outputs carry no ids."""
        return False

    def embedding_dim(self) -> int:
        """Widest embedding among the features."""
        return max(entry.feature.embedding_dim for entry in self.plan.features)

    def embedding_names_by_table(self) -> list[list[str]]:
        """Names of what is read, one list per logical table."""
        return [[read.name for read in entry.feature.reads] for entry in self.plan.features]


@dataclass(frozen=True)
class Embedded:
    """What a plan makes of a batch: `pooled` by the plan's outputs, in its order; `sequences` of those not pooled."""

    pooled: KeyedTensor
    sequences: dict[str, JaggedTensor]


class PlannedEmbeddingBagCollection(EmbeddingBagCollectionInterface):
    """Pooled embeddings, one (B, embedding_dim) block per feature; sequences beside them where the plan has some.

    Where the combiner is linear it commutes with pooling, and all such features go through one inner
    `EmbeddingBagCollection`, one fused kernel. So do single-valued features, whose pooling changes nothing. The rest,
    what is pooled by weight, and whatever shares a table with them, is looked up per id, combined, then pooled.
    """

    def __init__(self, plan: TablePlan, device: torch.device | None = None) -> None:
        super().__init__()
        self.plan = plan
        tables = {table.name: table for table in plan.tables}
        per_id = _per_id_features(plan)
        pooled = tuple(entry for entry in plan.features if entry.feature.name not in per_id)
        self.lookups = Lookups(pooled, tables, device)
        self.pooled = _bags(plan, self.lookups, device) if self.lookups.keys else None
        unpooled = tuple(entry for entry in plan.features if entry.feature.name in per_id)
        self.unpooled = PlannedEmbeddingCollection(_subplan(plan, unpooled), device) if unpooled else None
        self._side_by_side = not unpooled and all(_is_side_by_side(entry, tables) for entry in plan.features)
        self._are_rows = are_rows(plan)
        self._outputs = [output for output in plan.outputs if output.pooling is not Pooling.NONE]

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Look up, combine and pool.

        Args:
            features: int64 ids, keyed by the columns that features read; any number per row, none gives zeros.

        Returns:
            KeyedTensor, values (B, sum of embedding_dim) float32: the plan's outputs in its order, sequences left out.
        """
        return self.embed(features).pooled

    def every_row(self) -> Tensor | None:
        """Embeddings of all ids, feature by feature, (ids of all, embedding_dim), where nothing needs a look-up."""
        return whole_tables(self.plan, self.pooled) if self._are_rows else None

    def embed(self, features: KeyedJaggedTensor) -> Embedded:
        """As `forward`, with the sequences: the embedding of each id of the outputs that are not pooled."""
        by_source = features.to_dict()
        rows: dict[str, Tensor] = {}
        inputs = self.lookups.inputs(by_source)
        if self.pooled is not None:
            looked_up = self.pooled(self.lookups.physical(inputs, by_source))
            if self._side_by_side and looked_up.keys() == self.lookups.keys:
                return Embedded(self._keyed(looked_up.values()), {})  # spares two copies, forward and backward
            rows = looked_up.to_dict()
        embeddings = self._pooled_embeddings(inputs, rows)
        by_id = self.unpooled(features) if self.unpooled is not None else {}
        blocks = []
        for output in self._outputs:
            jagged = by_id.get(output.name)
            if jagged is None:
                pooled = embeddings[output.name]
            else:
                pooled = sum_pool(_weighted(jagged.values(), output, by_source), jagged.lengths())
            if output.pooling is Pooling.MEAN:
                pooled = pooled / by_source[output.source].lengths().clamp(min=1).unsqueeze(1)
            blocks.append(pooled)
        blocks = blocks or [torch.zeros(features.stride(), 0, device=features.values().device)]
        sequences = {o.name: by_id[o.name] for o in self.plan.outputs if o.pooling is Pooling.NONE}
        return Embedded(self._keyed(torch.cat(blocks, dim=1)), sequences)

    def _keyed(self, values: Tensor) -> KeyedTensor:
        return KeyedTensor(
            keys=[output.name for output in self._outputs],
            length_per_key=[output.embedding_dim for output in self._outputs],
            values=values,
        )

    def _pooled_embeddings(self, inputs: list[JaggedTensor], rows: dict[str, Tensor]) -> dict[str, Tensor]:
        embeddings = {}
        for number, (entry, jagged) in enumerate(zip(self.lookups.entries, inputs, strict=True)):
            linear = is_linear(self.lookups.combiners[number])
            ids = jagged.values() if linear else one_id_per_row(jagged)
            embedding = self.lookups.combine(number, ids, rows)
            # A combiner with weights may map "no row" to something else than zeros; as many ids as rows: each has one.
            if not linear and ids.numel() != jagged.values().numel():
                embedding = embedding * (jagged.lengths() > 0).unsqueeze(1)
            reads = entry.feature.reads
            for read, part in zip(reads, embedding.chunk(len(reads)), strict=True):
                embeddings[read.name] = part
        return embeddings

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """One logical table per feature, as TorchRec code that asks for widths and names expects."""
        return [
            EmbeddingBagConfig(
                name=entry.feature.name,
                num_embeddings=entry.feature.num_embeddings or 2**63 - 1,
                embedding_dim=entry.feature.embedding_dim,
                feature_names=[read.name for read in entry.feature.reads],
                pooling=PoolingType.MEAN if entry.feature.pooling is Pooling.MEAN else PoolingType.SUM,
            )
            for entry in self.plan.features
        ]

    def is_weighted(self) -> bool:
        """Whether ids of a column must carry weights."""
        return any(output.pooling is Pooling.WEIGHTED for output in self._outputs)


def parts_in(model: nn.Module) -> dict[str, tuple[Remap, Combiner]]:
    """Remap and combiner of every feature of the planned collections inside a model, sharded or not, by feature."""
    return {
        entry.feature.name: (part.remaps[number], part.combiners[number])  # type: ignore[misc]
        for part in model.modules()
        if isinstance(part, Lookups)
        for number, entry in enumerate(part.entries)
    }


def _is_side_by_side(entry: FeaturePlan, tables: dict[str, TableSpec]) -> bool:
    """True if the embedding is nothing but the feature's stored rows, summed and laid side by side."""
    unpadded = all(tables[name].storage_dim == tables[name].embedding_dim for name in entry.tables)
    summed = all(read.pooling is Pooling.SUM for read in entry.feature.reads)
    in_order = len(entry.tables) == 1 or not entry.feature.also  # look-ups are by table, then by read
    return unpadded and summed and in_order and isinstance(entry.combiner.build(), (Only, Concat))


def _per_id_features(plan: TablePlan) -> set[str]:
    """Features that must combine before pooling or are not pooled, and all that share a table with them.

    A table lives in one collection.
    """
    per_id = {e.feature.name for e in plan.features if any(_is_per_id(read, e) for read in e.feature.reads)}
    while True:
        tables = {name for e in plan.features if e.feature.name in per_id for name in e.tables}
        reached = {e.feature.name for e in plan.features if tables & set(e.tables)}
        if reached <= per_id:
            return per_id
        per_id |= reached


def _is_per_id(read: Read, entry: FeaturePlan) -> bool:
    return read.pooling in (Pooling.NONE, Pooling.WEIGHTED) or not (
        read.max_length == 1 or is_linear(entry.combiner.build())
    )


def _weighted(values: Tensor, output: FeatureSpec, by_source: dict[str, JaggedTensor]) -> Tensor:
    """Embeddings (N, D) of a column's ids, each times the id's weight where the column is pooled by weight."""
    if output.pooling is not Pooling.WEIGHTED:
        return values
    weights = by_source[output.source].weights_or_none()
    if weights is None:
        raise DataError(
            f"the batch has no weights, by which feature {output.name!r} pools the ids of column {output.source!r}. "
            "Give the jagged tensor weights, 1 for ids of other columns."
        )
    return values * weights.unsqueeze(1)


def _subplan(plan: TablePlan, entries: tuple[FeaturePlan, ...]) -> TablePlan:
    used = {name for entry in entries for name in entry.tables}
    return TablePlan(tables=tuple(t for t in plan.tables if t.name in used), features=entries)


class _TableInit:
    """Picklable `init_fn` of one table."""

    def __init__(self, table: TableSpec) -> None:
        self._table = table

    def __call__(self, weight: Tensor) -> Tensor:
        self._table.init.fill_(weight)
        if weight.dim() == 2:  # a rank without this table hands over an empty vector
            with torch.no_grad():
                weight[:, self._table.embedding_dim :] = 0  # padding is never read and gets no gradient: it stays zero
        return weight


def _bags(plan: TablePlan, lookups: Lookups, device: torch.device | None) -> EmbeddingBagCollection:
    used = {name for entry in lookups.entries for name in entry.tables}
    configs = [_config(EmbeddingBagConfig, table, lookups) for table in plan.tables if table.name in used]
    return EmbeddingBagCollection(tables=configs, device=device)


def _config(kind: type[ConfigT], table: TableSpec, lookups: Lookups) -> ConfigT:
    return kind(
        name=table.name,
        num_embeddings=table.num_embeddings,
        embedding_dim=table.storage_dim,
        feature_names=lookups.feature_names(table.name),
        init_fn=_TableInit(table),
    )
