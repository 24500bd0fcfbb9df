"""`fmfm`: a row by hand in both forms, counts of BARS, FM as a special case, widths that differ."""

from dataclasses import replace

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.fm import FMConfig
from recsys.models.fmfm import FmFMConfig, Interaction
from tests.models.reference import fmfm as reference
from tests.models.world import build, columns, inputs, num_on_frappe, num_on_movielens, randomised

MATRIX = FmFMConfig(embedding_dim=2, interaction=Interaction.MATRIX)
NO_NUMBERS = torch.empty(1, 0)


def test_parameter_counts() -> None:
    # BARS' best runs have a vector a pair: a linear machine with bias, FM's vectors, 45 and 3 pairs of 10 numbers
    assert num_on_frappe(FmFMConfig(embedding_dim=10)) == 59_280 + 450 == 59_730
    assert num_on_movielens(FmFMConfig(embedding_dim=10)) == 992_660
    assert num_on_frappe(FmFMConfig(embedding_dim=10, interaction=Interaction.MATRIX)) == 59_280 + 4_500


def test_a_pair_through_its_matrix_by_hand() -> None:
    head = build(MATRIX, 0, columns((5, 7)))
    with torch.no_grad():
        head.get_parameter("pairs.weights").copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))  # [[1, 2], [3, 4]]
        head.get_parameter("linear.bias").fill_(0.5)
    # [1, 2] M = [7, 10]; <[7, 10], [3, -1]> = 11
    assert head(NO_NUMBERS, torch.tensor([[1.0, 2.0, 3.0, -1.0, 10.0, 20.0]])).tolist() == [0.5 + 30.0 + 11.0]


def test_a_pair_through_its_vector_by_hand() -> None:
    head = build(FmFMConfig(embedding_dim=2), 0, columns((5, 7)))
    with torch.no_grad():
        head.get_parameter("pairs.weights").copy_(torch.tensor([[5.0], [7.0]]))
    # 5 * 1 * 3 + 7 * 2 * -1
    assert head(NO_NUMBERS, torch.tensor([[1.0, 2.0, 3.0, -1.0, 10.0, 20.0]])).tolist() == [30.0 + 1.0]


@pytest.mark.parametrize("interaction", Interaction)
def test_identities_make_it_a_factorisation_machine(interaction: Interaction) -> None:
    fmfm, fm = FmFMConfig(embedding_dim=4, interaction=interaction), FMConfig(embedding_dim=4)
    head, twin = build(fmfm, 0), build(fm, 0)
    with torch.no_grad():
        weights = head.get_parameter("pairs.weights")
        if interaction is Interaction.VECTOR:
            weights.fill_(1.0)
        else:  # three fields: rows of the first hold two blocks, rows of the second one, side by side
            identity = torch.eye(4)
            weights.copy_(torch.cat([torch.cat([identity, identity], 1).flatten(), identity.flatten()]))
    torch.testing.assert_close(head(*inputs(fmfm, 0)), twin(*inputs(fm, 0)), rtol=1e-5, atol=1e-5)


def test_matrices_join_embeddings_of_different_widths() -> None:
    features = MATRIX.features(columns())
    features[0], features[2] = replace(features[0], embedding_dim=3), replace(features[2], embedding_dim=5)
    head = randomised(MATRIX.build(features, 2))
    assert head.get_parameter("pairs.weights").numel() == 3 * 2 + 3 * 5 + 2 * 5 + (3 + 2 + 5) * 2 * 2 + 2 * 2
    dense, embeddings = torch.randn(4, 2), torch.randn(4, 3 + 2 + 5 + 3)
    for row, logit in enumerate(head(dense, embeddings).tolist()):
        vectors = [vector.tolist() for vector in embeddings[row].split([3, 2, 5, 1, 1, 1])]
        expected = reference.logits(MATRIX, head.state_dict(), dense[row].tolist(), vectors)
        assert logit == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_vectors_need_equal_widths() -> None:
    config = FmFMConfig()
    features = config.features(columns())
    features[1] = replace(features[1], embedding_dim=3)
    with pytest.raises(ConfigError, match=r"embedding_dim=3 of feature 'f1': fmfm with model\.interaction=vector"):
        config.build(features, 0)


@pytest.mark.parametrize("interaction", Interaction)
def test_weights_start_as_those_of_fuxictr(interaction: Interaction) -> None:
    config = FmFMConfig(embedding_dim=10, interaction=interaction)
    weights = build(config, 0, columns([3] * 30)).get_parameter("pairs.weights")
    shape = (435, 10) if interaction is Interaction.VECTOR else (435, 10, 10)
    other = torch.nn.init.xavier_normal_(torch.empty(shape))
    assert weights.numel() == other.numel()
    assert weights.std().item() == pytest.approx(other.std().item(), rel=0.05)
