"""`dnn`: counts, with BARS' own explained; a row by hand."""

import torch

from recsys.models.dlrm import DLRMConfig, Interaction
from recsys.models.dnn import DNNConfig
from tests.models.world import build, columns, num_on_frappe, num_on_movielens, num_parameters

TEN = DNNConfig(embedding_dim=10)


def test_parameter_counts() -> None:
    # BARS publishes 781,892 and 1,574,392: one whole MLP more than the network that its configuration describes.
    of_mlp = num_parameters(build(TEN, 0, columns([2] * 10)))
    assert of_mlp == 364_001
    assert num_on_frappe(TEN) == 417_891 == 781_892 - of_mlp
    of_mlp = num_parameters(build(TEN, 0, columns([2] * 3)))
    assert num_on_movielens(TEN) == 1_238_391 == 1_574_392 - of_mlp


def test_is_bars_dlrm_without_products() -> None:
    assert num_on_frappe(TEN) == num_on_frappe(DLRMConfig(embedding_dim=10, interaction=Interaction.CAT))


def test_a_row_by_hand() -> None:
    head = build(DNNConfig(embedding_dim=1, hidden_units=[2], batch_norm=False, dropout=0.0), 1, columns((5,)))
    with torch.no_grad():
        head.get_parameter("mlp.layers.0.weight").copy_(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
        head.get_parameter("mlp.layers.0.bias").copy_(torch.tensor([1.0, -5.0]))
        head.get_parameter("output.weight").copy_(torch.tensor([[2.0, 3.0]]))
        head.get_parameter("output.bias").fill_(0.25)
    # embedding 3, number 4: ReLU [3 + 8 + 1, -3 + 4 - 5] = [12, 0]
    assert head(torch.tensor([[4.0]]), torch.tensor([[3.0]])).tolist() == [24.25]
