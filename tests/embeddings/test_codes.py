"""Product codes: rows and bytes worked out by hand, and equality with the dense reference."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.codes import CodesRemap, codes_parts, codes_plan, nearest
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from tests.embeddings import dense_reference as reference


def test_rows_worked_out_by_hand() -> None:
    remap = CodesRemap(num_ids=3, num_parts=2, num_centroids=5)
    remap.fill(torch.tensor([[4, 0], [1, 3], [2, 2]]))
    # part 0: rows 0..4, part 1: rows 5..9
    assert remap(torch.tensor([0, 1, 2, 1])).tolist() == [[4, 1, 2, 1], [5, 8, 7, 8]]
    assert remap.rows_needed() == [5, 10]
    # codes of 3 bits, 4 0 1 3 2 2 from the lowest bit up: 01 00|100110 01|000100, and three bytes to read the last one
    assert remap.codes.tolist() == [0b01000100, 0b00100110, 0b01, 0, 0, 0]


def test_bytes_are_codes_and_codebook() -> None:
    feature = FeatureSpec(name="a", embedding_dim=16, num_embeddings=1000)
    plan = codes_plan(feature, num_parts=4, num_centroids=32)
    assert plan.remap_bytes == 1000 * 4 * 5 // 8 + 3
    assert plan.table_bytes == 4 * 32 * 4 * 4
    assert plan.num_bytes == plan.remap_bytes + plan.table_bytes


def test_hashed_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match="no vocabulary"):
        codes_plan(FeatureSpec(name="a", embedding_dim=4, num_embeddings=None), num_parts=2, num_centroids=4)


def test_nearest_by_hand_and_the_first_of_equals() -> None:
    codebook = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [-1.0, -1.0], [0.0, 3.0]]])
    rows = torch.tensor([[[1.1, 5.0], [0.0, 1.9]], [[0.9, -5.0], [-0.1, 0.0]]])
    # squares of row 0, part 1 to the centroids: 1 + .81, 1 + 8.41, 1.21; of row 1, part 1: 2.21, 1.81, 9.01
    assert nearest(rows, codebook).tolist() == [[1, 2], [0, 1]]


def test_codes_of_a_row_do_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, codebook = (torch.randn(size, generator=generator) for size in ((203, 4, 3), (4, 16, 3)))
    codes = nearest(rows, codebook)
    assert torch.equal(codes, torch.cat([nearest(row.unsqueeze(0), codebook) for row in rows]))
    brute = (rows.double().unsqueeze(2) - codebook.double().unsqueeze(0)).square().sum(-1).argmin(-1)
    assert torch.equal(codes, brute)


@pytest.mark.parametrize(("num_centroids", "dim"), [(2, 1), (64, 2), (300, 3), (65536, 2)])
def test_of_equally_near_centroids_the_first_in_batches_of_any_size(num_centroids: int, dim: int) -> None:
    """Sums as element-wise operations define them, and plain `min`; the second half of the centroids repeats the first.

    131 rows are one or several blocks, whose ends no vector fills.
    """
    generator = torch.Generator().manual_seed(num_centroids)
    rows, half = (torch.randn(size, generator=generator) for size in ((131, 2, dim), (2, num_centroids // 2, dim)))
    codebook = torch.cat([half, half], dim=1)
    distances = codebook.square().sum(-1).unsqueeze(0)
    for value in range(dim):
        distances = torch.addcmul(distances, rows[:, :, value].unsqueeze(2), -2 * codebook[None, :, :, value])
    want = distances.min(dim=2).indices
    assert int(want.max()) < num_centroids // 2
    for size in (1, 7, 64, 131):
        assert torch.equal(torch.cat([nearest(some, codebook) for some in rows.split(size)]), want)


def test_no_rows_have_no_codes() -> None:
    assert nearest(torch.empty(0, 2, 3), torch.zeros(2, 4, 3)).shape == (0, 2)


@pytest.mark.parametrize("num_parts", [1, 2, 6])
def test_values_and_gradients_equal_the_dense_reference(num_parts: int) -> None:
    generator = torch.Generator().manual_seed(num_parts)
    feature = FeatureSpec(name="a", embedding_dim=6, num_embeddings=20)
    plan = codes_plan(feature, num_parts=num_parts, num_centroids=7)
    codes = torch.randint(7, (20, num_parts), generator=generator)
    parts = codes_parts(plan, codes, torch.randn((num_parts, 7, 6 // num_parts), generator=generator))
    collection = PlannedEmbeddingBagCollection(plan)
    collection.lookups.remaps[0].load_state_dict(parts.remaps["a"].state_dict())
    reference.randomise(collection, seed=1)
    bags = reference.random_bags({"a": 20}, 9, seed=0, max_length=4)
    tables, states = reference.dense_tables(plan, collection), reference.states_of(collection)
    out, want = collection(reference.jagged(bags)).values(), reference.pooled(plan, tables, bags, states)
    torch.testing.assert_close(out, want)
    out.square().sum().backward()
    want.square().sum().backward()
    reference.assert_same_gradients(plan, collection, tables)
