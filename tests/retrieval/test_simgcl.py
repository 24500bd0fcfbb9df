"""SimGCL and XSimGCL: noise as published, gradients as if there were none, contrast against loops."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.retrieval.encoder import Encoded, graph_of
from recsys.retrieval.lightgcn import LayerWeights, LightGCNConfig
from recsys.retrieval.simgcl import ContrastiveConfig, SimGCL, SimGCLConfig, contrast, shaken_layers
from recsys.retrieval.xsimgcl import XSimGCL, XSimGCLConfig
from tests.retrieval.world import interactions

CPU = torch.device("cpu")
GRAPH = interactions()
COUNT = GRAPH.num_users + GRAPH.num_items


def nodes() -> Tensor:
    return torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()


def whole(columns: Tensor) -> Tensor:
    return columns


def test_noise_has_its_length_and_the_signs_of_the_node() -> None:
    adjacency = graph_of(GRAPH)
    start = nodes().detach()
    layers = shaken_layers(start, adjacency, 2, 0.3)
    for before, layer in pairwise(layers):
        clean = adjacency.product(before)
        noise = layer - clean
        met = clean.abs().sum(1) > 0
        torch.testing.assert_close(noise[met].norm(dim=1), torch.full((int(met.sum()),), 0.3), rtol=1e-4, atol=1e-5)
        assert (noise * clean >= 0).all()


@pytest.mark.parametrize("config", [SimGCLConfig(), XSimGCLConfig()], ids=["simgcl", "xsimgcl"])
def test_evaluation_is_lightgcn_without_layer_zero(config: ContrastiveConfig) -> None:
    x = nodes()
    plain = LightGCNConfig(layer_weights=LayerWeights.WITHOUT_INPUT).build(GRAPH, CPU)
    encoder = config.build(GRAPH, CPU).eval()
    torch.testing.assert_close(encoder(x), plain(x))
    torch.testing.assert_close(encoder.fold_in(x), plain.fold_in(x))


def test_xsimgcl_ranks_shaken_nodes_while_it_trains_with_the_gradient_of_clean_ones() -> None:
    encoder = XSimGCLConfig(noise=0.5).build(GRAPH, CPU)
    x, weight = nodes(), torch.randn(COUNT, 6)
    shaken = encoder(x)
    (found,) = torch.autograd.grad((shaken * weight).sum(), x)
    clean = encoder.eval()(x)
    (expected,) = torch.autograd.grad((clean * weight).sum(), x)
    torch.testing.assert_close(found, expected)
    assert float((shaken - clean).detach().abs().max()) > 0.05


def test_contrast_is_info_nce_over_distinct_nodes() -> None:
    first, second = nodes().detach(), nodes().detach() + 0.3
    users, items = torch.tensor([3, 5, 3]), torch.tensor([70, 71, 71])
    expected = 0.0
    for chosen in ([3, 5], [70, 71]):
        for node in chosen:
            scores = {o: float(torch.cosine_similarity(first[node], second[o], dim=0)) / 0.2 for o in chosen}
            expected += (math.log(sum(math.exp(s) for s in scores.values())) - scores[node]) / len(chosen)
    assert float(contrast(first, second, (users, items), 0.2, whole)) == pytest.approx(3 * expected, rel=1e-4)


def test_without_noise_simgcl_contrasts_what_is_scored_with_itself() -> None:
    encoder = SimGCLConfig(noise=0.0, contrast_weight=2.0).build(GRAPH, CPU)
    assert isinstance(encoder, SimGCL)
    x = nodes()
    final = encoder(x)
    users, items = torch.tensor([3, 5]), torch.tensor([70, 71])
    loss = encoder.auxiliary(Encoded(x, final), users, items, whole)
    assert loss is not None
    torch.testing.assert_close(loss, 2 * contrast(final, final, (users, items), 0.2, whole))
    (gradient,) = torch.autograd.grad(loss, x)
    assert bool(gradient.isfinite().all()) and bool((gradient != 0).any())


def test_xsimgcl_contrasts_a_layer_with_what_is_scored() -> None:
    encoder = XSimGCLConfig(noise=0.0, contrast_layer=2).build(GRAPH, CPU)
    assert isinstance(encoder, XSimGCL)
    x = nodes()
    final = encoder(x)
    users, items = torch.tensor([3, 5]), torch.tensor([70, 71])
    loss = encoder.auxiliary(Encoded(x, final), users, items, whole)
    second = encoder.adjacency.product(encoder.adjacency.product(x))
    assert loss is not None
    torch.testing.assert_close(loss, 0.2 * contrast(final, second, (users, items), 0.15, whole))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"num_layers": 0}, "noise is of layers"), ({"temperature": 0.0}, "temperature"), ({"noise": -1.0}, "noise=-1")],
)
def test_impossible_settings_are_named(wrong: dict[str, float], message: str) -> None:
    for kind in (SimGCLConfig, XSimGCLConfig):
        with pytest.raises(ConfigError, match=message):
            kind(layer_weights=LayerWeights.MEAN, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"contrast_layer=4: must lie in \[1, num_layers=3\]"):
        XSimGCLConfig(contrast_layer=4)


@pytest.mark.parametrize("config", [SimGCLConfig(), XSimGCLConfig()], ids=["simgcl", "xsimgcl"])
def test_a_step_is_that_of_autograd_through_every_shaken_layer(
    config: SimGCLConfig | XSimGCLConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []

    def recorded(like: Tensor) -> Tensor:
        drawn.append(torch.rand(like.shape))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand_like", recorded)
    x, users, items = nodes(), torch.tensor([3, 5, 3]), torch.tensor([70, 71, 80])
    encoder, batch = config.build(GRAPH, CPU), torch.cat([users, items])
    encoded = Encoded(x, encoder(x))
    own = encoder.auxiliary(encoded, users, items, whole)
    assert own is not None
    (found,) = torch.autograd.grad(own + encoded.final[batch].square().sum(), x)
    views = [by_autograd(x, noise, config.noise) for noise in (drawn[:3], drawn[3:])]
    if isinstance(config, XSimGCLConfig):
        scored, pair = torch.stack(views[0]).mean(0), (torch.stack(views[0]).mean(0), views[0][0])
    else:
        scored = torch.stack(by_autograd(x, [torch.zeros_like(x)] * 3, 0.0)).mean(0)
        pair = torch.stack(views[0]).mean(0), torch.stack(views[1]).mean(0)
    expected = config.contrast_weight * contrast(*pair, (users, items), config.temperature, whole)
    torch.testing.assert_close(own, expected)
    (wanted,) = torch.autograd.grad(expected + scored[batch].square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def by_autograd(x: Tensor, noise: list[Tensor], length: float) -> list[Tensor]:
    """Layers 1 on, by a dense adjacency, nothing detached."""
    dense, layers = graph_of(GRAPH).product(torch.eye(COUNT)), []
    for drawn in noise:
        x = dense @ x
        x = x + length * x.sign() * torch.nn.functional.normalize(drawn, dim=1)
        layers.append(x)
    return layers
