"""What every head does: counts of the literature, scripted = traced = eager, bf16, no numeric column, gradients."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from recsys.core.specs import Pooling
from recsys.models.ctr import ModelConfig
from recsys.models.dcnv2 import DCNv2Config
from recsys.models.deepfm import DeepFMConfig
from recsys.models.dlrm import DLRMConfig, Interaction
from recsys.models.lr import LRConfig
from tests.models.world import (
    FORMS,
    FRAPPE_ROWS,
    SEQUENTIAL,
    Arguments,
    build,
    columns,
    columns_for,
    inputs,
    num_on_frappe,
    of_rows,
    outputs_of,
)

EVERY_FORM = pytest.mark.parametrize("name", FORMS)
DENSE_OR_NOT = pytest.mark.parametrize("num_dense", [0, 3])


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (LRConfig(), 5_390),
        (DeepFMConfig(embedding_dim=10), 423_280),
        (DCNv2Config(embedding_dim=10, num_cross_layers=4, batch_norm=True, dropout=0.4), 458_391),
        (DLRMConfig(embedding_dim=10, interaction=Interaction.CAT, dropout=0.4), 417_891),
    ],
)
def test_parameter_counts_are_those_of_bars_on_frappe(config: ModelConfig, published: int) -> None:
    assert sum(FRAPPE_ROWS) == 5_389
    assert num_on_frappe(config) == published


@EVERY_FORM
def test_features_keep_everything_but_width_and_name(name: str) -> None:
    given = [
        dataclasses.replace(spec, embedding_dim=3, pooling=Pooling.MEAN, octave_counts=(4, i))
        for i, spec in enumerate(columns_for(FORMS[name]))
    ]
    given[0] = dataclasses.replace(given[0], source="raw")
    columns_by_source = {column.source: column for column in outputs_of(given)}
    for output in outputs_of(FORMS[name].features(given)):
        column = columns_by_source[output.source]
        if output.pooling is Pooling.NONE:
            assert type(FORMS[name]) in SEQUENTIAL and column.max_length != 1
            output = dataclasses.replace(output, pooling=column.pooling)
        assert dataclasses.replace(output, name=column.name, embedding_dim=3) == column


def test_deepfm_embeds_every_column_and_then_its_linear_weights() -> None:
    features = DeepFMConfig(embedding_dim=8).features(columns((5, 7)))
    assert [(spec.name, spec.source, spec.embedding_dim) for spec in features] == [
        ("f0", "f0", 8),
        ("f1", "f1", 8),
        ("f0__linear", "f0", 1),
        ("f1__linear", "f1", 1),
    ]


@EVERY_FORM
@DENSE_OR_NOT
def test_logits_are_one_float32_per_row(name: str, num_dense: int) -> None:
    head = build(FORMS[name], num_dense)
    for num_rows in (1, 6):
        logits = head.eval()(*inputs(FORMS[name], num_dense, num_rows))
        assert logits.shape == (num_rows,) and logits.dtype == torch.float32
    assert head(*inputs(FORMS[name], num_dense, 0)).shape == (0,)


@EVERY_FORM
@DENSE_OR_NOT
def test_scripted_and_traced_equal_eager(name: str, num_dense: int) -> None:
    head = build(FORMS[name], num_dense).eval()
    arguments = inputs(FORMS[name], num_dense)
    expected = head(*arguments)
    scripted = torch.jit.script(head)
    for same in (scripted, torch.jit.freeze(scripted), torch.fx.symbolic_trace(head)):
        torch.testing.assert_close(same(*arguments), expected, rtol=1e-6, atol=1e-6)
    # another number of rows than the one that a profiling executor saw first
    torch.testing.assert_close(scripted(*of_rows(arguments, slice(0, 2))), expected[:2], rtol=1e-6, atol=1e-6)


@EVERY_FORM
@DENSE_OR_NOT
def test_exported_equals_eager(name: str, num_dense: int) -> None:
    head = build(FORMS[name], num_dense).eval()
    arguments = inputs(FORMS[name], num_dense)
    rows = torch.export.Dim("rows", min=2)
    steps = torch.export.Dim("steps", min=2)
    shapes: list[object] = [{0: rows}, {0: rows}]
    if len(arguments) == 4:
        shapes += [[{0: rows, 1: steps}] * len(arguments[2]), [{0: rows}] * len(arguments[3])]
    program = torch.export.export(head, arguments, dynamic_shapes=tuple(shapes), strict=False)
    more = inputs(FORMS[name], num_dense, num_rows=9)
    torch.testing.assert_close(program.module()(*more), head(*more), rtol=1e-6, atol=1e-6)


@EVERY_FORM
def test_scripted_graph_holds_aten_operators_only(name: str) -> None:
    scripted = torch.jit.freeze(torch.jit.script(build(FORMS[name], 3).eval()))
    namespaces = {node.kind().split("::")[0] for node in scripted.inlined_graph.nodes()}
    assert namespaces <= {"aten", "prim"}


@EVERY_FORM
@DENSE_OR_NOT
def test_bf16_autocast_is_close_and_returns_float32(name: str, num_dense: int) -> None:
    head = build(FORMS[name], num_dense)
    arguments = inputs(FORMS[name], num_dense, num_rows=256)
    expected = head.eval()(*arguments).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(*arguments)
    assert logits.dtype == torch.float32
    # bf16 keeps 8 bits, so one rounding errs by up to 0.2% of a number, and about ten follow on one another. In a few
    # rows it may also change which events of a history are the best.
    errors = (logits - expected).detach().abs().sort().values
    assert errors[:-4].norm() < 0.02 * expected.norm()
    head.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head(*arguments).sum().backward()
    for parameter in head.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


def gradients(head: nn.Module, arguments: Arguments) -> list[Tensor | None]:
    """Gradients of a loss that no symmetry cancels, of every parameter, of pooled embeddings and of sequences."""
    looked_up = [arguments[1], *(arguments[2] if len(arguments) == 4 else [])]
    for embeddings in looked_up:
        embeddings.requires_grad_()
    num_rows = arguments[0].shape[0]
    outputs = head(*arguments).view(num_rows, -1)  # in training mode, streams may stand beside the logits
    (outputs * torch.linspace(1, 2, num_rows).unsqueeze(1)).square().sum().backward()
    return [*(parameter.grad for parameter in head.parameters()), *(embeddings.grad for embeddings in looked_up)]


@EVERY_FORM
@DENSE_OR_NOT
def test_gradient_reaches_every_parameter_and_every_embedding(name: str, num_dense: int) -> None:
    for gradient in gradients(build(FORMS[name], num_dense), inputs(FORMS[name], num_dense, num_rows=64)):
        assert gradient is not None and gradient.abs().sum() > 0


@EVERY_FORM
def test_logits_of_a_row_do_not_depend_on_its_neighbours(name: str) -> None:
    head, arguments = build(FORMS[name], 3).eval(), inputs(FORMS[name], 3)
    for row in (slice(0, 1), slice(2, 3)):
        torch.testing.assert_close(head(*arguments)[row], head(*of_rows(arguments, row)), rtol=1e-6, atol=1e-6)


@EVERY_FORM
def test_initial_weights_are_xavier_normal_and_biases_zero(name: str) -> None:
    for layer in build(FORMS[name], 3).modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            assert not layer.bias.any()


def test_xavier_scale_of_a_large_layer() -> None:
    head = build(DCNv2Config(embedding_dim=100), 0)
    weight = head.get_parameter("cross.layers.0.weight")
    assert weight.std().item() == pytest.approx((2 / 600) ** 0.5, rel=0.02)
