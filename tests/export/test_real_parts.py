"""Real encoder, real methods, real heads: the trained TorchRec model and its exported twin score raw rows alike."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.manifest import NumericStatistics
from recsys.core.plan import TablePlan
from recsys.core.schema import MISSING_KEY, CategoricalFeature, IdEncoding, KeyType, NumericFeature, Schema
from recsys.core.specs import FeatureSpec, Pooling, RowType
from recsys.data.encoder import FeatureEncoder
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.quotient_remainder import Combine, QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from recsys.export.border import border_tensors, slice_rows
from recsys.export.bundle import FrozenModel, build_serving_model
from recsys.export.script import operator_kinds, script_model
from recsys.models.ctr import CtrModel, ModelConfig
from recsys.models.dcnv2 import DCNv2Config
from recsys.models.deepfm import DeepFMConfig
from recsys.models.dlrm import DLRMConfig
from recsys.models.lr import LRConfig

WIDTH = 4
VOCABULARY_SIZE = 50
SCHEMA = Schema(
    label="label",
    numeric=(NumericFeature(name="I1"), NumericFeature(name="I2")),
    categorical=(
        CategoricalFeature(name="C1", key_type=KeyType.INTEGER),
        CategoricalFeature(name="tags", multi_valued=True, max_length=3, pooling=Pooling.MEAN),
        CategoricalFeature(name="C2"),
    ),
)
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(),
    "hash": HashConfig(compression_ratio=4),
    "qr_product": QuotientRemainderConfig(compression_ratio=2),
    "qr_sum": QuotientRemainderConfig(compression_ratio=2, combine=Combine.SUM),
    "unified": UnifiedConfig(compression_ratio=4),
    "unified_2": UnifiedConfig(compression_ratio=4, num_lookups=2),
}
MODELS: dict[str, ModelConfig] = {
    "lr": LRConfig(),
    "deepfm": DeepFMConfig(embedding_dim=WIDTH),
    "dcnv2": DCNv2Config(embedding_dim=WIDTH),
    "dlrm": DLRMConfig(embedding_dim=WIDTH),
}


def make_encoder(schema: Schema) -> FeatureEncoder:
    """Keys are multiples of 7, most frequent first; an id is the key's rank."""
    keys = (torch.arange(VOCABULARY_SIZE - 1) * 7).flip(0)
    statistics = {f.name: NumericStatistics(mean=0.5, std=2.0, num_missing=0) for f in schema.numeric}
    hashed = {f.name for f in schema.categorical if f.encoding is IdEncoding.HASH}
    return FeatureEncoder(schema, statistics, {f.name: keys for f in schema.categorical if f.name not in hashed}, {})


def feature_specs(schema: Schema) -> list[FeatureSpec]:
    return [
        FeatureSpec(
            name=f.name,
            embedding_dim=WIDTH,
            num_embeddings=None if f.encoding is IdEncoding.HASH else VOCABULARY_SIZE,
            pooling=f.pooling,
            max_length=f.max_length if f.multi_valued else 1,
            octave_counts=(1,) * 6,
        )
        for f in schema.categorical
    ]


def tables_of(plan: TablePlan, collection: nn.Module) -> dict[str, Tensor]:
    weights = {name.split(".")[-2]: weight for name, weight in collection.state_dict().items() if "weight" in name}
    return {table.name: weights[table.name][:, : table.embedding_dim].clone() for table in plan.tables}


def make_world(method: MethodConfig, model: ModelConfig, schema: Schema) -> tuple[CtrModel, FrozenModel]:
    torch.manual_seed(0)
    features = model.features(feature_specs(schema))
    plan = method.plan(features)
    collection = PlannedEmbeddingBagCollection(plan, torch.device("cpu"))
    for parameter in collection.parameters():
        nn.init.normal_(parameter, std=0.5)
    head = model.build([entry.feature for entry in plan.features], len(schema.numeric))
    ctr = CtrModel(collection, head).eval()
    trained = FrozenModel(
        schema=schema,
        parts=parts_of(collection, tables_of(plan, collection)),
        head=head,
        encoder=make_encoder(schema),
    )
    return ctr, trained


def raw_rows(schema: Schema, num_rows: int = 200) -> dict[str, Tensor]:
    """Raw values with missing numbers, missing and never-seen keys, and rows of 0 to 5 tags (3 are kept)."""
    generator = torch.Generator().manual_seed(1)
    rows = {f.name: torch.randn(num_rows, generator=generator) * 10 for f in schema.numeric}
    for column in rows.values():
        column[::7] = torch.nan
    for feature in schema.categorical:
        lengths = torch.randint(0, 6, (num_rows,), generator=generator)
        count = int(lengths.sum()) if feature.multi_valued else num_rows
        keys = torch.randint(0, VOCABULARY_SIZE + 5, (count,), generator=generator) * 7
        keys[::5] = 1 - keys[::5] * 2**40  # never seen
        keys[::11] = MISSING_KEY
        rows[feature.name] = keys
        if feature.multi_valued:
            rows[feature.name + "__lengths"] = lengths
    return rows


def trained_logits(ctr: CtrModel, trained: FrozenModel, rows: dict[str, Tensor]) -> Tensor:
    dense, ids, offsets = trained.encoder(rows)
    names: Sequence[str] = [feature.name for feature in trained.schema.categorical]
    sparse = KeyedJaggedTensor(
        keys=list(names), values=torch.cat(ids), lengths=torch.cat([offset.diff() for offset in offsets])
    )
    with torch.no_grad():
        logits: Tensor = ctr(dense, sparse)
    return logits


def check_twins(method: MethodConfig, model: ModelConfig, schema: Schema) -> None:
    ctr, trained = make_world(method, model, schema)
    rows = raw_rows(schema)
    expected = trained_logits(ctr, trained, rows)
    assert expected.std() > 0.01, "a constant model would prove nothing"
    scripted = script_model(build_serving_model(trained, RowType.FLOAT32)[1])
    torch.testing.assert_close(scripted(rows)[0], expected, rtol=1e-5, atol=1e-5)
    assert {kind.split("::")[0] for kind in operator_kinds(scripted)} <= {"aten", "prim"}
    one = slice_rows(rows, border_tensors(schema), start=17, stop=18)
    torch.testing.assert_close(scripted(one)[0], expected[17:18], rtol=1e-5, atol=1e-5)
    narrow = script_model(build_serving_model(trained, RowType.INT8)[1])
    assert (narrow(rows)[0] - expected).abs().mean() < 0.02 * expected.std() + 0.005


@pytest.mark.parametrize("method", METHODS)
def test_every_method_serves_as_it_was_trained(method: str) -> None:
    check_twins(METHODS[method], DCNv2Config(embedding_dim=WIDTH), SCHEMA)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_serves_as_it_was_trained(model: str) -> None:
    check_twins(FullConfig(), MODELS[model], SCHEMA)


def test_hashed_columns_and_no_numeric_columns() -> None:
    """Frappe has no numeric column; a hashed column has no vocabulary."""
    schema = Schema(
        label="label",
        categorical=(
            CategoricalFeature(name="C1", encoding=IdEncoding.HASH),
            CategoricalFeature(name="tags", multi_valued=True, encoding=IdEncoding.HASH),
        ),
    )
    check_twins(UnifiedConfig(compression_ratio=2), DCNv2Config(embedding_dim=WIDTH), schema)
