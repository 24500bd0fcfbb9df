"""The published algorithm is ours: equal lists and gradients; limits by hand; generated graphs; every part runs."""

import pytest
import torch
from torch.nn.functional import softplus

from recsys.ops.propagation import SparseRows, bipartite_adjacency, propagate
from recsys.retrieval.encoder import graph_of
from recsys.retrieval.ranking import rank
from recsys.retrieval.recommender import DotRecommender
from tests.retrieval.world import interactions
from tools.bench_graph import NEAR_ROWS, grown, least_bytes, near, power_law
from tools.published_lightgcn import PublishedLightGCN


def test_the_published_algorithm_computes_what_ours_does() -> None:
    torch.manual_seed(0)
    graph = interactions()
    model = PublishedLightGCN(graph, width=8, num_layers=3)
    initial = torch.cat([model.users.weight, model.items.weight]).detach().requires_grad_()
    adjacency = bipartite_adjacency(graph.users, graph.items, num_users=graph.num_users, num_items=graph.num_items)
    final = propagate(initial, torch.full((4,), 0.25), adjacency)
    users, items = final.split([graph.num_users, graph.num_items])
    torch.testing.assert_close(torch.cat(model.propagated()), final)

    rows, negatives = torch.arange(10), torch.arange(3, 13) % (graph.num_items - 1) + 1
    user, positive = graph.users[rows], graph.items[rows]
    model.loss(user, positive, negatives).backward()
    scores = ((users[user] * items[one]).sum(1) for one in (negatives, positive))
    loss = softplus(-torch.stack(list(scores)).diff(dim=0)).mean()
    places = torch.cat([user, positive + graph.num_users, negatives + graph.num_users])
    (loss + 1e-4 * 0.5 * initial[places].square().sum() / len(rows)).backward()
    assert model.users.weight.grad is not None and model.items.weight.grad is not None and initial.grad is not None
    found = torch.cat([model.users.weight.grad, model.items.weight.grad])
    torch.testing.assert_close(found, initial.grad, rtol=1e-4, atol=1e-7)

    asked = torch.arange(1, 30)

    dot = DotRecommender(users=users.detach(), items=items.detach(), fold_in=items.detach())
    found = model.lists(asked, 5)
    listed = rank(dot, asked, graph, k=5, users_at_once=8).items
    comparable = (found != 0).all(1)  # theirs may list item 0, which is none
    assert comparable.float().mean() > 0.5
    assert (found == listed)[comparable].float().mean() > 0.98, "but for sigmoids that tie"


def test_least_bytes_of_a_product() -> None:
    matrix = SparseRows.of(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1]), torch.ones(3), num_rows=3)
    # 4 offsets, 3 columns and 3 values of 4 bytes; rows 0 and 1 read, 3 rows written, each of 4 numbers of 2 bytes.
    assert least_bytes(matrix, 4, 2) == (4 + 3 + 3) * 4 + (2 + 3) * 4 * 2


def test_near_rows_are_as_many() -> None:
    matrix = graph_of(power_law(20_000, torch.Generator().manual_seed(0)))
    close = near(matrix)
    x = torch.ones(matrix.num_rows, 1)
    torch.testing.assert_close(close.product(x), matrix.product(x))
    assert 1 < int(close.columns.max()) + 1 <= NEAR_ROWS < int(matrix.columns.max())


@pytest.mark.parametrize("edges", [20_000, 100_000])
def test_a_generated_graph_has_as_many_nodes_as_told_and_few_popular_items(edges: int) -> None:
    graph = power_law(edges, torch.Generator().manual_seed(0))
    assert (graph.num_users, graph.num_items) == (edges // 20 + 1, edges // 40 + 1)
    assert 0.7 * edges < graph.num_pairs <= edges
    tenth = graph.item_degrees.sort(descending=True).values[: graph.num_items // 10].sum()
    assert tenth > 0.3 * graph.num_pairs


def test_growth_is_measured() -> None:
    found = grown(2_000, 1, torch.get_num_threads())
    assert found.nodes == 2_000 // 20 + 2_000 // 40 + 2
    assert min(found.seconds, found.build_seconds, found.peak_mib) > 0
