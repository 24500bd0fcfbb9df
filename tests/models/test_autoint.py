"""AutoInt: a layer by hand, the published counts, dropout of attention, what the paper's and other code does else."""

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.models.autoint import AutoIntConfig, SelfAttention
from tests.models.world import build, columns, inputs, num_on_frappe, num_on_movielens, num_parameters, randomised

PLUS = AutoIntConfig(embedding_dim=10)
PLAIN = AutoIntConfig(
    embedding_dim=10, num_attention_layers=6, layer_norm=False, scale=False, hidden_units=[], dropout=0.0
)


def layer_of(input_dim: int, **values: float) -> SelfAttention:
    """One layer, without normalisation and scale unless asked for."""
    plain = {"layer_norm": False, "scale": False, "dropout": 0.0}
    return SelfAttention(AutoIntConfig(**(plain | values)), input_dim)  # type: ignore[arg-type]


def test_one_head_by_hand() -> None:
    layer = layer_of(2, attention_dim=1, num_heads=1, residual=True)
    log3 = 1.0986122886681098
    with torch.no_grad():
        # query: the first number; key: the second, times log 3; value: 4 times the first
        layer.projections.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, log3], [4.0, 0.0]]))
        layer.get_parameter("residual.weight").copy_(torch.tensor([[-1.0, 2.0]]))
    # field a: scores log 3 * [0, 1], weights 1/4 and 3/4, values 4 and -8: 1 - 6 = -5, residual -1: ReLU gives 0
    # field b: scores log 3 * -2 * [0, 1], weights 9/10 and 1/10: 3.6 - 0.8 = 2.8, residual 2 + 2 = 4
    fields = torch.tensor([[[1.0, 0.0], [-2.0, 1.0]]])
    torch.testing.assert_close(layer(fields), torch.tensor([[[0.0], [6.8]]]))


def test_parameter_counts_are_those_of_bars() -> None:
    # AutoInt on frappe, 10 fields of width 10: 53,890 in tables; queries, keys, values and a matrix of the residual,
    # 4 x 10 x 128, in the first layer; 3 x 128 x 128 in each of five others, whose residual is their input; 10 x 128
    # weights and a bias. Version 1.1 of FuxiCTR, with 128 for each head, would have almost 16 times as many there.
    assert num_on_frappe(PLAIN) == 53_890 + 5_120 + 5 * 49_152 + 1_281 == 306_051
    # AutoInt+: a layer less; 2 x 128 of normalisation in each; the MLP with batch normalisation, 364,001.
    assert num_on_frappe(PLUS) == 53_890 + 5_120 + 4 * 49_152 + 5 * 256 + 1_281 + 364_001 == 622_180
    # Movielens, 3 fields: two layers, and a linear part of 90,239 weights without a bias.
    wide = {"embedding_dim": 10, "num_attention_layers": 2, "wide": True}
    assert num_on_movielens(AutoIntConfig(**wide, hidden_units=[])) == 1_047_798  # type: ignore[arg-type]
    assert num_on_movielens(AutoIntConfig(**wide)) == 1_383_799  # type: ignore[arg-type]


def test_residual_has_a_matrix_only_where_widths_differ() -> None:
    assert num_parameters(layer_of(10)) == 4 * 1_280
    assert num_parameters(layer_of(128)) == 3 * 128 * 128
    assert num_parameters(layer_of(10, residual=False)) == 3 * 1_280


def test_queries_keys_and_values_are_drawn_as_layers_of_their_own() -> None:
    torch.manual_seed(0)
    for part in layer_of(300, attention_dim=100).projections.weight.chunk(3):
        assert part.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.03)


def test_fields_without_order_give_outputs_without_order() -> None:
    layer = randomised(layer_of(4, attention_dim=6, num_heads=2))
    fields = torch.randn(3, 5, 4)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(layer(fields[:, order]), layer(fields)[:, order])


def test_heads_do_not_mix_fields() -> None:
    """Each head reads all fields: a view as (B * heads, F, ...) without a transposition let it read F / heads of them.

    FuxiCTR did so before 1.2.2 (its issue 30).
    """
    layer = randomised(layer_of(4, attention_dim=6, num_heads=2, residual=False))
    fields = torch.randn(1, 4, 4, requires_grad=True)
    for head in (0, 1):
        outputs = layer(fields)[0, 0, 3 * head : 3 * head + 3]
        (gradient,) = torch.autograd.grad(outputs.sum(), fields)
        assert (gradient[0].abs().sum(1) > 0).all()


def test_numeric_column_is_a_field() -> None:
    """Its value times a learned vector, behind the embeddings (eq. 4): the same as an embedding of that content."""
    config = AutoIntConfig(embedding_dim=4, attention_dim=8, num_heads=2, hidden_units=[8], dropout=0.0)
    head = randomised(build(config, 1))
    without = build(config, 0, columns((5, 7, 11, 3)))
    without.load_state_dict({key: value for key, value in head.state_dict().items() if key != "numeric.vectors"})
    dense, embeddings, *_ = inputs(config, 1)
    field = dense * head.get_parameter("numeric.vectors")
    torch.testing.assert_close(
        head(dense, embeddings), without.eval()(dense[:, :0], torch.cat([embeddings, field], 1)), rtol=1e-6, atol=1e-6
    )


def test_training_without_dropped_weights_is_evaluation() -> None:
    layer = layer_of(4, attention_dim=6, num_heads=2, scale=True, dropout=0.5)
    fields = torch.randn(3, 5, 4)
    expected = layer.eval()(fields)
    assert layer.dropout is not None
    layer.train()
    assert not torch.allclose(layer(fields), expected)
    layer.dropout.eval()
    torch.testing.assert_close(layer(fields), expected)


def test_training_in_bfloat16_computes_what_evaluation_does() -> None:
    layer = randomised(layer_of(4, attention_dim=6, num_heads=2, scale=True))
    fields = torch.randn(30, 5, 4)
    expected = layer(fields)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for mode in (True, False):
            assert (layer.train(mode)(fields).float() - expected).norm() < 0.02 * expected.norm()


def test_dropout_of_attention_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = layer_of(4, attention_dim=6, num_heads=2, residual=False, dropout=0.3)
    fields = torch.rand(1, 5, 4)
    query, key, value = torch.randn(3, 1, 2, 5, 3).unbind(0)
    expected = layer.eval().attend(query, key, value)
    many: list[Tensor] = [t.expand(20_000, -1, -1, -1) for t in (query, key, value)]
    mean = layer.train().attend(*many).mean(0, keepdim=True)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.03)
    assert layer(fields).shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, r"model\.num_heads=3 does not divide model\.attention_dim=128"),
        ({"num_heads": 0}, r"model\.num_heads=0"),
        ({"attention_dim": 0}, r"model\.attention_dim=0"),
        ({"num_attention_layers": 0}, r"model\.num_attention_layers=0"),
        ({"hidden_units": [0]}, r"model\.hidden_units=\[0\]"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ],
)
def test_impossible_values(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutoIntConfig(**values)  # type: ignore[arg-type]
