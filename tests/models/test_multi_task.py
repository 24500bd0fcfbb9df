"""Heads of several tasks: each column is that of the reference; of one task they are like any other model."""

from typing import cast

import pytest
import torch

from recsys.models.ctr import ModelConfig, MultiTask
from recsys.models.esmm import ESMM, ESMMConfig
from recsys.models.mmoe import MMoEConfig
from recsys.models.ple import PLEConfig
from recsys.models.shared_bottom import SharedBottomConfig
from tests.models.world import FORMS, REFERENCES, columns, inputs, num_parameters, outputs_of, randomised

NAMES = [name for name, form in FORMS.items() if isinstance(form, MultiTask)]


def build_tasks(config: ModelConfig, num_dense: int, num_tasks: int) -> torch.nn.Module:
    torch.manual_seed(0)
    outputs = outputs_of(config.features(columns()))
    return cast(MultiTask, config).build_tasks(outputs, num_dense, num_tasks)


def test_there_are_several() -> None:
    assert {type(FORMS[name]) for name in NAMES} == {ESMMConfig, MMoEConfig, PLEConfig, SharedBottomConfig}


@pytest.mark.parametrize("num_dense", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_each_column_is_the_reference_s(name: str, num_dense: int) -> None:
    config = FORMS[name]
    head = randomised(build_tasks(config, num_dense, 3))
    dense, embeddings = inputs(config, num_dense)[:2]
    found = head(dense, embeddings)
    assert found.shape == (6, 3) and found.dtype == torch.float32
    for row in range(6):
        vectors = embeddings[row].view(3, -1).tolist()
        wanted = [REFERENCES[name](config, head.state_dict(), dense[row].tolist(), vectors, task) for task in range(3)]
        assert found[row].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(torch.jit.script(head)(dense, embeddings), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_and_no_task_is_left_out(name: str) -> None:
    head = build_tasks(FORMS[name], 2, 2)
    dense, embeddings = inputs(FORMS[name], 2)[:2]
    embeddings.requires_grad_()
    for task in range(2):
        (gradient,) = torch.autograd.grad(head(dense, embeddings)[:, task].square().sum(), embeddings)
        assert bool((gradient != 0).any())
    head(dense, embeddings).square().sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_counts_of_weights() -> None:
    # 3 fields 4 wide, two tasks, no numbers. Shared bottom: 12 x 7 + 7; towers 7 x 5 + 5, 5 x 3 + 3, 3 + 1.
    assert num_parameters(build_tasks(FORMS["shared_bottom_without_batch_norm"], 0, 2)) == 91 + 2 * (40 + 18 + 4)
    # MMoE: experts 12 x 6 + 6, gates 12 x 2, towers 6 x 5 + 5 and 5 + 1.
    assert num_parameters(build_tasks(FORMS["mmoe_without_batch_norm"], 0, 2)) == 2 * 78 + 2 * 24 + 2 * 41
    # PLE, one level: 2 own experts a task and 1 shared, 12 x 7 + 7 and 7 x 6 + 6 each; gates 12 x 3; towers as above.
    assert num_parameters(build_tasks(FORMS["ple_of_one_level"], 0, 2)) == 5 * (91 + 48) + 2 * 36 + 2 * 41


def test_esmm_s_probabilities_only_fall_and_survive_extremes() -> None:
    head = randomised(build_tasks(FORMS["esmm_without_batch_norm"], 0, 3))
    assert isinstance(head, ESMM)
    with torch.no_grad():
        for output, bias in zip(head.towers.outputs, (80.0, 200.0, -300.0), strict=True):
            cast(torch.nn.Linear, output).weight.zero_()
            cast(torch.nn.Linear, output).bias.fill_(bias)
    dense, embeddings = inputs(FORMS["esmm"], 0)[:2]
    embeddings.requires_grad_()
    found = head(dense, embeddings)
    assert bool(torch.isfinite(found).all()), "probabilities that are 1 or 0 in float32 have logits all the same"
    assert bool((found.diff(dim=1) <= 0).all())
    assert found[0].tolist() == pytest.approx([80.0, 69.08, -300.0], abs=0.01)
    found.sum().backward()
    gradients = [parameter.grad for parameter in head.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
