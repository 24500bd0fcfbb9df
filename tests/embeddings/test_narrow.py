"""`narrow`: widths and bytes worked out by hand, with the projections counted."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.narrow import NarrowConfig
from recsys.embeddings.projection import Projection, worthwhile_width
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, SIZES, features


def spec(name: str, size: int, width: int = 10) -> FeatureSpec:
    return FeatureSpec(name=name, embedding_dim=width, num_embeddings=size, max_length=1)


def test_the_largest_width_that_fits_with_its_projection() -> None:
    # 100 x 10 floats, half of them: 4 x (100 + 10) = 440 fit, 5 x 110 = 550 do not
    plan = NarrowConfig(compression_ratio=2).plan([spec("a", 100)])
    (table,) = plan.tables
    assert (table.num_embeddings, table.embedding_dim) == (100, 4)
    assert (plan.table_bytes, plan.combiner_bytes, plan.remap_bytes) == (1600, 160, 0)


def test_a_feature_whose_projection_would_outweigh_the_saving_stays_full() -> None:
    # 3 x 10 floats; narrow to 4 they and their matrix would take 52
    plan = NarrowConfig(compression_ratio=2).plan([spec("a", 100), spec("tiny", 3)])
    assert [table.embedding_dim for table in plan.tables] == [4, 10]


@pytest.mark.parametrize("size", [1, 2, 5, 15, 16, 17, 1000])
@pytest.mark.parametrize("embedding_dim", [1, 2, 10, 16])
def test_memory_never_shrinks_as_the_width_grows(size: int, embedding_dim: int) -> None:
    widths = [worthwhile_width(size, width, embedding_dim) for width in range(1, embedding_dim + 1)]
    taken = [size * w if w == embedding_dim else (size + embedding_dim) * w for w in widths]
    assert taken == sorted(taken) and taken[-1] == size * embedding_dim


def test_linear_weights_stay_whole_and_the_rest_pays_for_them() -> None:
    # 1000 x 16 and 1000 x 1 floats; a fifth of 17,000 is 3400: the weights' 1000 and 2 x (1000 + 16) of the rest fit
    wide, thin = spec("a", 1000, width=16), spec("a__linear", 1000, width=1)
    plan = NarrowConfig(compression_ratio=5).plan([wide, thin])
    assert {entry.feature.name: plan.table(entry.tables[0]).embedding_dim for entry in plan.features} == {
        "a": 2,
        "a__linear": 1,
    }
    with pytest.raises(ConfigError, match="needs 8,064 bytes"):  # 4 x (1016 + 1000)
        NarrowConfig(compression_ratio=10).plan([wide, thin])


def test_embeddings_start_at_the_scale_of_a_full_table() -> None:
    torch.manual_seed(0)
    plan = NarrowConfig(compression_ratio=4, init=Init(scale=0.02)).plan([spec("a", 20_000, width=64)])
    collection = PlannedEmbeddingBagCollection(plan)
    out = collection(reference.jagged({"a": [[i] for i in range(20_000)]})).values()
    assert out.std().item() == pytest.approx(0.02, rel=0.1)


def test_projection_is_one_matrix() -> None:
    projection = Projection(2, 3)
    with torch.no_grad():
        projection.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    out = projection(torch.tensor([7]), [torch.tensor([[1.0, 2.0]])])
    assert out.tolist() == [[21.0, 42.0, 63.0]]
    assert projection.linear


def test_hashed_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no vocabulary"):
        NarrowConfig().plan([FeatureSpec(name="ip", embedding_dim=4, num_embeddings=None)])


def test_budgets() -> None:
    check_budgets(lambda ratio: NarrowConfig(compression_ratio=ratio))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_the_dense_reference(kind: str, check: str) -> None:
    plan = NarrowConfig(compression_ratio=2).plan(features(kind, width=6))
    assert "projection" in plan.to_json()
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))
