"""A small world for export tests: plans of every shape, an encoder with the ingest contract, and a dense reference."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Combiner, Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.schema import CategoricalFeature, NumericFeature, Schema
from recsys.core.specs import FeatureSpec, Pooling, TableSpec
from recsys.embeddings.combiners import Concat, Only, Product, Sum
from recsys.embeddings.hash import HashRemap
from recsys.embeddings.method import Identity
from recsys.embeddings.quotient_remainder import QuotientRemainderRemap
from recsys.export.bundle import FrozenModel

NUM_IDS = 7  # of every feature; keys are 100 + id, other keys are unknown


def make_schema(*, pooling: Pooling = Pooling.SUM, num_numeric: int = 2) -> Schema:
    """`a` single-valued, `tags` multi-valued."""
    return Schema(
        label="label",
        numeric=tuple(NumericFeature(name=f"n{i}") for i in range(num_numeric)),
        categorical=(
            CategoricalFeature(name="a", pooling=pooling),
            CategoricalFeature(name="tags", multi_valued=True, pooling=pooling),
        ),
    )


class TinyEncoder(nn.Module):
    """The contract of the ingest encoder: sorted keys, searchsorted, 0 for unknown keys."""

    numeric: list[str]
    keys: Tensor
    ids: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.numeric = [feature.name for feature in schema.numeric]
        self.categorical = [feature.name for feature in schema.categorical]
        self.multi_valued = [feature.multi_valued for feature in schema.categorical]
        self.register_buffer("keys", torch.arange(101, 100 + NUM_IDS))
        self.register_buffer("ids", torch.arange(1, NUM_IDS))

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return dense (B, num_dense), ids and offsets per categorical feature."""
        ids: list[Tensor] = []
        offsets: list[Tensor] = []
        num_rows = 0
        for i, name in enumerate(self.categorical):
            keys = features[name]
            place = torch.searchsorted(self.keys, keys).clamp(max=self.keys.numel() - 1)
            ids.append(torch.where(self.keys[place] == keys, self.ids[place], torch.zeros_like(keys)))
            lengths = features[name + "__lengths"] if self.multi_valued[i] else torch.ones_like(keys)
            offsets.append(torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))
            num_rows = lengths.numel()
        dense = torch.zeros((num_rows, len(self.numeric)))
        for i, name in enumerate(self.numeric):
            dense[:, i] = torch.nan_to_num(features[name])
        return dense, ids, offsets


class TinyHead(nn.Module):
    """A head with the parts real ones have: normalisation, dropout, a layer."""

    def __init__(self, num_dense: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_dense + embedding_dim)
        self.dropout = nn.Dropout(0.5)
        self.layer = nn.Linear(num_dense + embedding_dim, 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits (B,)."""
        logits: Tensor = self.layer(self.dropout(self.norm(torch.cat([dense, embeddings], dim=1)))).squeeze(1)
        return logits


class Projection(Combiner):
    """A linear combiner with weights."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, embedding_dim, bias=False)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Project the only row."""
        projected: Tensor = self.layer(rows[0])
        return projected


class SignedProduct(Combiner):
    """A combiner that is not linear and reads ids."""

    linear: bool = False

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Product of two rows; negative for odd ids."""
        return rows[0] * rows[1] * (1 - 2 * (ids % 2)).to(rows[0].dtype).unsqueeze(1)


class ConstantRemap(Remap):
    """All ids to row 0 of one table: a remap of another form."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return zeros (1, N)."""
        return torch.zeros_like(ids).unsqueeze(0)


METHODS = ("full", "hash", "qr_product", "qr_sum", "unified", "projection", "signed", "wide_and_deep")


def make_plan(method: str, *, pooling: Pooling = Pooling.SUM, width: int = 4) -> tuple[TablePlan, dict[str, Combiner]]:
    """A plan over columns `a` and `tags`, and its combiners by feature name."""
    pieces = [_feature(method, name, pooling, width) for name in ("a", "tags")]
    if method == "wide_and_deep":  # one column embedded twice, once with width 1
        pieces += [_feature("full", name, pooling, 1, name=f"{name}__linear") for name in ("a", "tags")]
    tables = {table.name: table for piece in pieces for table in piece[0]}
    plan = TablePlan(tables=tuple(tables.values()), features=tuple(piece[1] for piece in pieces))
    combiners = {piece[1].feature.name: piece[2] for piece in pieces}
    return plan, combiners


def _feature(
    method: str, source: str, pooling: Pooling, width: int, *, name: str = ""
) -> tuple[list[TableSpec], FeaturePlan, Combiner]:
    name = name or source
    rows: list[tuple[str, int]] = [(name, NUM_IDS)]
    remap, dim = Component.of(Identity), width
    combiner: Combiner = Only()
    if method == "hash":
        rows, remap = [(name, 3)], Component.of(HashRemap, num_rows=3, salts=[len(name)])
    elif method in ("qr_product", "qr_sum", "signed"):
        rows, remap = [(f"{name}_q", 3), (f"{name}_r", 3)], Component.of(QuotientRemainderRemap, num_remainders=3)
        combiner = {"qr_product": Product(), "qr_sum": Sum(), "signed": SignedProduct()}[method]
    elif method == "unified":  # `tags` reads the shared table twice as often
        salts = [1, 2] if source == "a" else [3, 4, 5, 6]
        rows, remap, combiner = [("shared", 5)], Component.of(HashRemap, num_rows=5, salts=salts), Concat()
        dim = width * len(salts)
    elif method == "projection":
        combiner, dim = Projection(width, 2 * width), 2 * width
    length = 1 if source == "a" else None
    spec = FeatureSpec(
        name=name, source=source, embedding_dim=dim, num_embeddings=NUM_IDS, pooling=pooling, max_length=length
    )
    tables = [TableSpec(name=table, num_embeddings=count, embedding_dim=width) for table, count in rows]
    names = tuple(table.name for table in tables) * (len(remap.params.get("salts", [0])) if method == "unified" else 1)
    # Combiners of this file are no part of the package, which a plan may not name; the model gets the module itself.
    named = Component.of(type(combiner) if type(combiner).__module__.startswith("recsys.") else Only)
    entry = FeaturePlan(feature=spec, tables=names, remap=remap, combiner=named)
    return tables, entry, combiner


def make_trained(
    method: str, *, pooling: Pooling = Pooling.SUM, width: int = 4, num_numeric: int = 2, seed: int = 0
) -> FrozenModel:
    """A model with random weights."""
    torch.manual_seed(seed)
    schema = make_schema(pooling=pooling, num_numeric=num_numeric)
    plan, combiners = make_plan(method, pooling=pooling, width=width)
    head = TinyHead(num_numeric, sum(entry.feature.embedding_dim for entry in plan.features))
    assert head.norm.running_mean is not None
    head.norm.running_mean.normal_()
    return FrozenModel(
        schema=schema,
        parts=EmbeddingParts(
            plan=plan,
            tables={table.name: torch.randn(table.num_embeddings, table.embedding_dim) for table in plan.tables},
            remaps={entry.feature.name: cast(Remap, entry.remap.build()) for entry in plan.features},
            combiners=combiners,
        ),
        head=head,
        encoder=TinyEncoder(schema),
    )


def make_features(a: Sequence[int], tags: Sequence[Sequence[int]], *, num_numeric: int = 2) -> dict[str, Tensor]:
    """Border tensors from keys."""
    generator = torch.Generator().manual_seed(len(a))
    features = {f"n{i}": torch.randn(len(a), generator=generator) for i in range(num_numeric)}
    features["a"] = torch.tensor(a, dtype=torch.int64)
    features["tags"] = torch.tensor([key for row in tags for key in row], dtype=torch.int64)
    features["tags__lengths"] = torch.tensor([len(row) for row in tags], dtype=torch.int64)
    return features


def reference_logits(trained: FrozenModel, features: Mapping[str, Tensor]) -> Tensor:
    """Score row by row and id by id, by indexing tables: written without anything of the export room."""
    num_rows = features["a"].numel()
    bags: dict[str, list[list[int]]] = {"a": [[key] for key in features["a"].tolist()], "tags": []}
    values = features["tags"].tolist()
    for length in features["tags__lengths"].tolist():
        bags["tags"].append(values[:length])
        values = values[length:]
    columns = []
    parts = trained.parts
    for entry in parts.plan.features:
        remap, combiner = parts.remaps[entry.feature.name], parts.combiners[entry.feature.name]
        pooled = torch.zeros(num_rows, entry.feature.embedding_dim)
        for row, bag in enumerate(bags[entry.feature.source]):
            for key in bag:
                ids = torch.tensor([key - 100 if 100 < key < 100 + NUM_IDS else 0])
                rows = remap(ids)
                looked_up = [parts.tables[table][rows[t]] for t, table in enumerate(entry.tables)]
                pooled[row] += combiner(ids, looked_up)[0].detach()
            if entry.feature.pooling is Pooling.MEAN:
                pooled[row] /= max(len(bag), 1)
        columns.append(pooled)
    numeric = [torch.nan_to_num(features[f.name]).unsqueeze(1) for f in trained.schema.numeric]
    dense = torch.cat(numeric, dim=1) if numeric else torch.zeros(num_rows, 0)
    with torch.no_grad():
        logits: Tensor = trained.head.eval()(dense, torch.cat(columns, dim=1))
    return logits
