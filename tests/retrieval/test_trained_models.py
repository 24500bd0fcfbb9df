"""NGCF, SimpleX and UltraGCN against dense formulas."""

import math

import pytest
import torch
from torch.nn.functional import leaky_relu, normalize, softplus

from recsys.core.errors import ConfigError
from recsys.retrieval import dimension_shards
from recsys.retrieval.encoder import Encoded, EncoderConfig
from recsys.retrieval.ngcf import NGCF, NGCFConfig
from recsys.retrieval.recommender import DotRecommender
from recsys.retrieval.simplex import SimpleX, SimpleXConfig
from recsys.retrieval.ultra_gcn import UltraGCN, UltraGCNConfig
from tests.retrieval.test_models import adjacency, matrix
from tests.retrieval.world import interactions

CPU = torch.device("cpu")
GRAPH = interactions()
WIDTH = 6


def nodes() -> torch.Tensor:
    return torch.randn(GRAPH.num_users + GRAPH.num_items, WIDTH).requires_grad_()


def test_ngcf_puts_its_layers_side_by_side() -> None:
    encoder = NGCFConfig(embedding_dim=WIDTH, num_layers=2, dropout=0.0).build(GRAPH, CPU)
    assert isinstance(encoder, NGCF)
    x, a = nodes(), adjacency(GRAPH).float()
    layer, expected = x, [x]
    for of_sum, of_product in zip(encoder.sums, encoder.products, strict=True):
        messages = a @ layer
        layer = leaky_relu(of_sum(messages + layer) + of_product(messages * layer), 0.2)
        expected.append(normalize(layer, dim=1))
    found = encoder(x)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in [x, *encoder.parameters()])


def test_ngcf_drops_messages_while_it_trains_alone() -> None:
    encoder = NGCFConfig(embedding_dim=WIDTH, dropout=0.5).build(GRAPH, CPU)
    x = nodes()
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


def test_simplex_adds_the_mean_of_the_history() -> None:
    encoder = SimpleXConfig(embedding_dim=WIDTH, own_share=0.3).build(GRAPH, CPU)
    assert isinstance(encoder, SimpleX)
    x, r = nodes(), matrix(GRAPH).float()
    users, items = x[: GRAPH.num_users], x[GRAPH.num_users :]
    mean = (r @ items) / r.sum(1, keepdim=True).clamp(min=1)
    expected = torch.cat([0.3 * users + 0.7 * mean @ encoder.project.weight.t(), items])
    found = encoder(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((each * weight).sum(), [x, encoder.project.weight]) for each in (found, expected)]
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_new_user_of_simplex_is_ordered_for_as_a_known_one_without_an_embedding() -> None:
    encoder = SimpleXConfig(embedding_dim=WIDTH).build(GRAPH, CPU)
    x = nodes().detach()
    x[7] = 0
    split = GRAPH.num_users
    final, folded = encoder(x), encoder.fold_in(x)
    model = DotRecommender(users=final[:split], items=final[split:], fold_in=folded[split:])
    known, new = (model(torch.tensor([user]), *GRAPH.of_users(torch.tensor([7]))) for user in (7, 0))
    torch.testing.assert_close(normalize(new), normalize(known), rtol=1e-4, atol=1e-5)


def test_ultra_gcn_draws_users_to_what_items_share() -> None:
    config = UltraGCNConfig(embedding_dim=WIDTH, num_neighbors=3, neighbor_weight=2.0)
    encoder = config.build(GRAPH, CPU)
    assert isinstance(encoder, UltraGCN)
    x, r = nodes(), matrix(GRAPH)
    common = r.t() @ r
    degrees = common.sum(1)
    near = common * (torch.sqrt(degrees + 1) / degrees.clamp(min=1)).unsqueeze(1) / torch.sqrt(degrees + 1)
    users, items = torch.tensor([3, 9]), torch.tensor([5, 12])
    expected = torch.zeros(())
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        weights, neighbors = near[item].topk(3)
        for weight, neighbor in zip(weights.tolist(), neighbors.tolist(), strict=True):
            expected = expected + 2.0 * weight * softplus(-(x[user] * x[GRAPH.num_users + neighbor]).sum())
    assert torch.equal(encoder(x), x)
    found = encoder.auxiliary(Encoded(x, x), users, items + GRAPH.num_users, lambda columns: columns)
    assert found is not None
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    folded = encoder.fold_in(x).detach()[3]
    torch.testing.assert_close(folded, x.detach()[3] / math.sqrt(float(r[3].sum())))


@pytest.mark.parametrize("config", [NGCFConfig(), SimpleXConfig()])
def test_models_that_mix_columns_are_refused_on_ranks(config: EncoderConfig) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dimension_shards, "num_ranks", lambda: 2)
        with pytest.raises(ConfigError, match=r"on 2 ranks: its weights mix the columns"):
            config.build(GRAPH, CPU)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (NGCFConfig, {"num_layers": 0}),
        (NGCFConfig, {"dropout": 1.0}),
        (SimpleXConfig, {"own_share": 1.0}),
        (UltraGCNConfig, {"num_neighbors": 0}),
        (UltraGCNConfig, {"neighbor_weight": -1.0}),
        (UltraGCNConfig, {"embedding_dim": 0}),
    ],
)
def test_impossible_settings_are_named(kind: type[EncoderConfig], wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"retrieval.model.{next(iter(wrong))}="):
        kind(**wrong)  # type: ignore[arg-type]
