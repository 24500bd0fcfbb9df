"""Collections built from a `TablePlan`: drop-ins for TorchRec's `EmbeddingBagCollection` and `EmbeddingCollection`.

Inside are only TorchRec's own collections, so `DistributedModelParallel` shards and fuses them as it always does.
"""

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

from recsys.core.modules import Combiner, Remap, is_linear
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import Pooling, TableSpec
from recsys.embeddings.combiners import Concat, Only
from recsys.embeddings.lookups import Lookups
from recsys.embeddings.pooling import one_id_per_row, sum_pool

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
            features: int64 ids, keyed by the features' `source`.

        Returns:
            By feature name, a JaggedTensor of values (N, embedding_dim) float32 with the lengths (B,) of its input.
        """
        by_source = features.to_dict()
        inputs = self.lookups.inputs(by_source)
        looked_up: dict[str, Tensor] = {}
        physical = self.lookups.physical(inputs) if self.lookups.keys else None
        for collection in self.collections:
            looked_up |= {key: jagged.values() for key, jagged in collection(physical).items()}
        return {
            entry.feature.name: JaggedTensor(
                values=self.lookups.combine(number, jagged.values(), looked_up), lengths=jagged.lengths()
            )
            for number, (entry, jagged) in enumerate(zip(self.plan.features, inputs, strict=True))
        }

    def embedding_configs(self) -> list[EmbeddingConfig]:
        """One logical table per feature, as TorchRec code that asks for widths and names expects."""
        return [
            EmbeddingConfig(
                name=entry.feature.name,
                num_embeddings=entry.feature.num_embeddings or 2**63 - 1,
                embedding_dim=entry.feature.embedding_dim,
                feature_names=[entry.feature.name],
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
        """Feature names, one list per logical table."""
        return [[entry.feature.name] for entry in self.plan.features]


class PlannedEmbeddingBagCollection(EmbeddingBagCollectionInterface):
    """Pooled embeddings, one (B, embedding_dim) block per feature.

    Where the combiner is linear it commutes with pooling, and all such features go through one inner
    `EmbeddingBagCollection`, one fused kernel. So do single-valued features, whose pooling changes nothing. The rest,
    and whatever shares a table with them, is looked up per id, combined, then pooled.
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

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Look up, combine and pool.

        Args:
            features: int64 ids, keyed by the features' `source`; any number per row, none gives zeros.

        Returns:
            KeyedTensor, values (B, sum of embedding_dim) float32, features in the plan's order.
        """
        by_source = features.to_dict()
        rows: dict[str, Tensor] = {}
        if self.pooled is not None:
            looked_up = self.pooled(self.lookups.physical(self.lookups.inputs(by_source)))
            if self._side_by_side and looked_up.keys() == self.lookups.keys:
                return self._keyed(looked_up.values())  # spares two copies of the output, forward and backward
            rows = looked_up.to_dict()
        embeddings = self._pooled_embeddings(by_source, rows)
        if self.unpooled is not None:
            for name, jagged in self.unpooled(features).items():
                embeddings[name] = sum_pool(jagged.values(), jagged.lengths())
        outputs = []
        for entry in self.plan.features:
            embedding = embeddings[entry.feature.name]
            if entry.feature.pooling is Pooling.MEAN:
                embedding = embedding / by_source[entry.feature.source].lengths().clamp(min=1).unsqueeze(1)
            outputs.append(embedding)
        return self._keyed(torch.cat(outputs, dim=1))

    def _keyed(self, values: Tensor) -> KeyedTensor:
        return KeyedTensor(
            keys=[entry.feature.name for entry in self.plan.features],
            length_per_key=[entry.feature.embedding_dim for entry in self.plan.features],
            values=values,
        )

    def _pooled_embeddings(self, by_source: dict[str, JaggedTensor], rows: dict[str, Tensor]) -> dict[str, Tensor]:
        embeddings = {}
        for number, entry in enumerate(self.lookups.entries):
            jagged = by_source[entry.feature.source]
            linear = is_linear(self.lookups.combiners[number])
            ids = jagged.values() if linear else one_id_per_row(jagged)
            embedding = self.lookups.combine(number, ids, rows)
            if not linear:  # a combiner with weights may map "no row" to something else than zeros
                embedding = embedding * (jagged.lengths() > 0).unsqueeze(1)
            embeddings[entry.feature.name] = embedding
        return embeddings

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """One logical table per feature, as TorchRec code that asks for widths and names expects."""
        return [
            EmbeddingBagConfig(
                name=entry.feature.name,
                num_embeddings=entry.feature.num_embeddings or 2**63 - 1,
                embedding_dim=entry.feature.embedding_dim,
                feature_names=[entry.feature.name],
                pooling=PoolingType.MEAN if entry.feature.pooling is Pooling.MEAN else PoolingType.SUM,
            )
            for entry in self.plan.features
        ]

    def is_weighted(self) -> bool:
        """False: ids carry no weights."""
        return False


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
    return unpadded and entry.feature.pooling is Pooling.SUM and isinstance(entry.combiner.build(), (Only, Concat))


def _per_id_features(plan: TablePlan) -> set[str]:
    """Features that must combine before pooling, and all that share a table with them: it lives in one collection."""
    per_id = {
        e.feature.name for e in plan.features if not e.feature.single_valued and not is_linear(e.combiner.build())
    }
    while True:
        tables = {name for e in plan.features if e.feature.name in per_id for name in e.tables}
        reached = {e.feature.name for e in plan.features if tables & set(e.tables)}
        if reached <= per_id:
            return per_id
        per_id |= reached


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
