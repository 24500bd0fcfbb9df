"""FinalMLP: fusion and gates by hand, counts of BARS, contexts with embeddings of their own."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.finalmlp import BilinearFusion, FinalMLPConfig
from tests.models.world import build, columns, inputs, num_over

FRAPPE_ROWS_V2 = (956, 4084, 9, 9, 4, 5, 4, 11, 82, 235)
"""user, item and so on in FuxiCTR 2.0: each column has a row for padding that FuxiCTR 1 had not, 5,399 in all."""


def test_count_of_bars_on_frappe() -> None:
    config = FinalMLPConfig(embedding_dim=10, gate1_context=["f0"], gate2_context=["f1"])
    tables = 53_990 + 10 * (956 + 4084)  # gates have their own embeddings of user and item
    gates = 2 * (10 * 400 + 400 + 400 * 100 + 100)
    first, second = 100 * 400 + 400 + 800, 100 * 100 + 100 + 200  # batch norm included
    fusion = 401 + 101 + 5 * (400 // 5) * (100 // 5)  # a bias for each stream's linear part
    assert num_over(config, FRAPPE_ROWS_V2) == tables + gates + first + second + fusion == 253_392


def test_count_of_bars_on_movielens() -> None:
    config = FinalMLPConfig(embedding_dim=10, stream2_units=[800], stream2_dropout=0.2, num_heads=10, gate_units=[800])
    contexts = 2 * 10  # a learned vector for each gate
    gates = 2 * (10 * 800 + 800 + 800 * 30 + 30)
    first, second = 30 * 400 + 400 + 800, 30 * 800 + 800 + 1600
    fusion = 401 + 801 + 10 * 40 * 80
    rows = (16979, 23744, 49519)  # 90,242: one more a column than in FuxiCTR 1
    assert num_over(config, rows) == 902_420 + contexts + gates + first + second + fusion == 1_040_902


def test_fusion_by_hand() -> None:
    fusion = BilinearFusion(4, 2, 2)
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([[[1.0], [2.0]], [[-1.0], [0.5]]]))
        fusion.linear1.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        fusion.linear1.bias.fill_(0.25)
        fusion.linear2.weight.copy_(torch.tensor([[0.0, 3.0]]))
        fusion.linear2.bias.fill_(0.5)
    # head 0: (1*1 + 2*2) * 5; head 1: (3*-1 + 4*.5) * 6; linear 1 + .25 + 18 + .5; heads do not mix
    assert fusion(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[5.0, 6.0]])).tolist() == [25 - 6 + 19.75]


def test_a_gate_that_says_nothing_leaves_the_features_as_they_are() -> None:
    """2 sigmoid(0) = 1."""
    config = FinalMLPConfig(embedding_dim=4, gate1_context=["f0"], gate2_context=["f1"])
    plain = FinalMLPConfig(embedding_dim=4, gates=False)
    gated, ungated = build(config, 2).eval(), build(plain, 2).eval()
    with torch.no_grad():
        for gate in ("gate1", "gate2"):
            gated.get_parameter(f"{gate}.output.weight").zero_()
    state = {key: value for key, value in gated.state_dict().items() if not key.startswith("gate")}
    ungated.load_state_dict(state)
    dense, embeddings, *_ = inputs(config, 2)
    torch.testing.assert_close(gated(dense, embeddings), ungated(dense, embeddings[:, :12]))


def test_each_gate_reads_its_own_context_only() -> None:
    config = FinalMLPConfig(embedding_dim=4, gate1_context=["f2"], gate2_context=["f1", "f0"])
    features = config.features(columns())
    assert [(spec.name, spec.source, spec.embedding_dim) for spec in features[3:]] == [
        ("f2__gate1", "f2", 4),
        ("f1__gate2", "f1", 4),
        ("f0__gate2", "f0", 4),
    ]
    head = build(config, 0)
    embeddings = torch.randn(2, 24, requires_grad=True)
    read = []
    for gate in ("gate1", "gate2"):
        opened = head.get_submodule(gate)(torch.ones(2, 12), embeddings)
        (gradient,) = torch.autograd.grad(opened.sum(), embeddings)
        read.append((gradient != 0).any(0).nonzero().flatten().tolist())
    assert read == [list(range(12, 16)), list(range(16, 24))]


def test_a_learned_context_is_alive_from_the_start() -> None:
    """At zero, where FuxiCTR starts it, ReLU would pass no gradient, ever."""
    head = build(FinalMLPConfig(embedding_dim=4), 0)
    vector = head.get_parameter("gate1.context.vector")
    assert 0 < vector.abs().max() < 1e-3
    head(*inputs(FinalMLPConfig(embedding_dim=4), 0)).sum().backward()
    assert vector.grad is not None and vector.grad.any()


def test_vectors_of_numeric_columns_start_as_weights_of_one_input_do() -> None:
    """Xavier normal of 1 input and 100 outputs: variance 2 / 101."""
    vectors = build(FinalMLPConfig(embedding_dim=100), 100).get_parameter("numeric.vectors")
    assert vectors.std().item() == pytest.approx(0.14072, rel=0.05)


def test_the_first_epoch_of_a_small_data_set_is_evaluated_as_it_was_trained() -> None:
    """After 27 steps, the Criteo sample's epoch, .9^27 = .058 of the first running variance, 1, is still there.

    Batch norm's inputs have to be larger than that, though rows of tables start at 1e-4. With numbers' vectors as small
    their variance is 1e-8, and logits in evaluation were a hundredth of those in training.
    """
    config = FinalMLPConfig(embedding_dim=16, stream1_dropout=0.0, stream2_dropout=0.0)
    torch.manual_seed(0)
    head = build(config, 13, columns(range(5, 31)))
    dense, embeddings = torch.randn(512, 13), torch.randn(512, 26 * 16) * 1e-4
    with torch.no_grad():
        for _ in range(27):
            trained = head(dense, embeddings)
        evaluated = head.eval()(dense, embeddings)
    assert evaluated.std() / trained.std() == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, r"model\.num_heads=3 does not divide 400, the last of model\.stream1_units"),
        ({"num_heads": 200}, r"does not divide 100, the last of model\.stream2_units"),
        ({"gate1_context": ["a", "a"]}, r"model\.gate1_context=\['a', 'a'\]"),
        ({"gate2_context": ["a"], "gates": False}, r"model\.gate2_context=\['a'\] with model\.gates=False"),
        ({"gate_units": []}, r"model\.gate_units=\[\]"),
        ({"stream2_dropout": 1.0}, r"model\.stream2_dropout=1\.0"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinalMLPConfig(**options)  # type: ignore[arg-type]


def test_refuses_contexts_that_are_no_column_and_another_order() -> None:
    config = FinalMLPConfig(gate1_context=["user"])
    with pytest.raises(
        ConfigError, match=r"model\.gate1_context=\['user'\]: 'user' is no .* among \['f0', 'f1', 'f2'\]"
    ):
        config.features(columns())
    features = FinalMLPConfig(gate1_context=["f0"]).features(columns())
    for wrong in (features[::-1], features[:-1], features[-1:] + features[:-1]):
        with pytest.raises(ConfigError, match="Keep the order"):
            FinalMLPConfig(gate1_context=["f0"]).build(wrong, 0)
