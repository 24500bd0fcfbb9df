"""Models against dense formulas: LightGCN with its fold-in, EASE, ItemCF, GF-CF; all script."""

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.ease import EASEConfig
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.gf_cf import GFCFConfig
from recsys.retrieval.item_cf import ItemCFConfig
from recsys.retrieval.lightgcn import LayerWeights, LightGCNConfig, Storage
from recsys.retrieval.recommender import DotRecommender, load_recommender, save_recommender
from tests.retrieval.world import interactions

CPU = torch.device("cpu")
FITTED = [EASEConfig(regularizer=3.0), ItemCFConfig(num_neighbors=40), GFCFConfig(num_vectors=6)]


def matrix(graph: Interactions) -> Tensor:
    """R, float64."""
    found = torch.zeros(graph.num_users, graph.num_items, dtype=torch.float64)
    found[graph.users, graph.items] = 1
    return found


def inverse_root(degrees: Tensor) -> Tensor:
    return torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), torch.zeros(()).double())


def normalised(graph: Interactions) -> Tensor:
    r = matrix(graph)
    return inverse_root(r.sum(1)).unsqueeze(1) * r * inverse_root(r.sum(0))


def adjacency(graph: Interactions) -> Tensor:
    s = normalised(graph)
    users, items = s.shape
    return torch.cat([torch.cat([torch.zeros(users, users), s], 1), torch.cat([s.t(), torch.zeros(items, items)], 1)])


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("weights", list(LayerWeights))
def test_lightgcn_is_the_mean_of_its_layers(layers: int, weights: LayerWeights) -> None:
    if layers == 0 and weights is LayerWeights.WITHOUT_INPUT:
        with pytest.raises(ConfigError, match="leaves nothing"):
            LightGCNConfig(num_layers=0, layer_weights=weights)
        return
    graph = interactions()
    encoder = LightGCNConfig(num_layers=layers, layer_weights=weights).build(graph, CPU)
    nodes = torch.randn(graph.num_users + graph.num_items, 6)
    a, layer, total = adjacency(graph), nodes.double(), []
    for _ in range(layers + 1):
        total.append(layer)
        layer = a @ layer
    kept = total[1:] if weights is LayerWeights.WITHOUT_INPUT else total
    torch.testing.assert_close(encoder(nodes).double(), sum(kept) / len(kept), rtol=1e-4, atol=1e-5)


def test_a_new_user_gets_what_a_known_one_with_his_items_would_but_for_layer_zero() -> None:
    """Of a user whose own embedding is zero, and who so adds nothing to his items, both are the same."""
    graph = interactions()
    encoder = LightGCNConfig(num_layers=1).build(graph, CPU)
    nodes = torch.randn(graph.num_users + graph.num_items, 6)
    user = 7
    nodes[user] = 0
    final, fold_in = encoder(nodes), encoder.fold_in(nodes)
    split = graph.num_users
    model = DotRecommender(users=final[:split], items=final[split:], fold_in=fold_in[split:])
    items, offsets = graph.of_users(torch.tensor([user]))
    torch.testing.assert_close(model.of_history(items, offsets)[0], final[user], rtol=1e-5, atol=1e-6)
    known, new = model(torch.tensor([user]), items, offsets), model(torch.tensor([0]), items, offsets)
    torch.testing.assert_close(known, new, rtol=1e-5, atol=1e-5)


def test_layers_may_be_bfloat16() -> None:
    graph = interactions()
    nodes = torch.randn(graph.num_users + graph.num_items, 6)
    exact = LightGCNConfig().build(graph, CPU)(nodes)
    rounded = LightGCNConfig(storage=Storage.BFLOAT16).build(graph, CPU)(nodes)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.03)


def scores(config: FittedConfig, graph: Interactions) -> Tensor:
    users = torch.arange(graph.num_users)
    found: Tensor = config.fit(graph)(users, *graph.of_users(users))
    return found


def test_ease_is_the_ridge_regression_without_a_diagonal() -> None:
    graph = interactions()
    x = matrix(graph)
    found = scores(EASEConfig(regularizer=3.0), graph).double()
    for item in (1, 7, 40):  # each column alone: the same item's own column is left out of its regression
        others = [i for i in range(graph.num_items) if i != item]
        gram = x[:, others].t() @ x[:, others] + 3 * torch.eye(len(others))
        weights = torch.linalg.solve(gram, x[:, others].t() @ x[:, item])
        torch.testing.assert_close(found[:, item], x[:, others] @ weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [3, 40])
def test_item_cf_sums_cosines_of_the_nearest(count: int) -> None:
    graph = interactions()
    r = matrix(graph)
    scale = inverse_root(r.sum(0))
    similar = scale.unsqueeze(1) * (r.t() @ r) * scale
    similar.fill_diagonal_(0)
    floor = similar.topk(count, dim=1).values[:, -1:]
    found = scores(ItemCFConfig(num_neighbors=count), graph).double()
    if count == 40:
        torch.testing.assert_close(found, r @ similar, rtol=1e-4, atol=1e-5)
    kept_or_more = r @ torch.where(similar >= floor, similar, 0.0)  # ties at the border may be kept or not
    kept_or_less = r @ torch.where(similar > floor, similar, 0.0)
    assert (found <= kept_or_more + 1e-5).all() and (found >= kept_or_less - 1e-5).all()


def test_gf_cf_adds_both_filters() -> None:
    graph = interactions()
    s, r = normalised(graph), matrix(graph)
    degrees = r.sum(0)
    vectors = torch.linalg.svd(s).Vh[:6].t()
    low_pass = torch.diag(inverse_root(degrees)) @ vectors @ vectors.t() @ torch.diag(degrees.sqrt())
    expected = r @ (s.t() @ s + 0.3 * low_pass)
    found = scores(GFCFConfig(num_vectors=6), graph).double()
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("config", FITTED)
def test_fitted_models_script_and_survive_a_file(
    config: FittedConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph, path = interactions(), tmp_path_factory.mktemp("fitted") / "recommender.pt"
    recommender = config.fit(graph)
    save_recommender(recommender, path)
    users = torch.arange(3, 9)
    expected = recommender(users, *graph.of_users(users))
    assert torch.equal(load_recommender(path)(users, *graph.of_users(users)), expected)
    assert torch.equal(torch.jit.script(recommender)(users, *graph.of_users(users)), expected)
