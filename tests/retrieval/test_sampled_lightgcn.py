"""Sampled neighbours: each alike often, sums right on average, and the whole propagation where all are taken."""

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows
from recsys.retrieval.encoder import Encoded, Encoder, graph_of
from recsys.retrieval.lightgcn import LayerWeights, LightGCNConfig, Storage
from recsys.retrieval.sampled_lightgcn import SampledLightGCN, SampledLightGCNConfig, sample_neighbors
from tests.retrieval.world import interactions

CPU = torch.device("cpu")
GRAPH = interactions()
COUNT = GRAPH.num_users + GRAPH.num_items
PLACES = torch.tensor([3, 70, 3, 0, 61, 99, 12])  # nodes 0 and 61 are the unknown ones and have no neighbours


def built(
    fan_out: int, weights: LayerWeights = LayerWeights.MEAN, storage: Storage = Storage.FLOAT32
) -> SampledLightGCN:
    encoder = SampledLightGCNConfig(fan_out=fan_out, layer_weights=weights, storage=storage).build(GRAPH, CPU)
    assert isinstance(encoder, SampledLightGCN)
    return encoder


def nodes() -> Tensor:
    return torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()


def sampled(encoder: SampledLightGCN, x: Tensor, places: Tensor) -> Encoded:
    reached = encoder.reached(places)
    return encoder.at_reached(x[reached.nodes], reached)


@pytest.mark.parametrize("weights", list(LayerWeights))
def test_all_neighbours_are_the_whole_propagation_and_its_gradients(weights: LayerWeights) -> None:
    plain, encoder = LightGCNConfig(layer_weights=weights).build(GRAPH, CPU), built(COUNT, weights)

    def with_gradients(of: Encoder, x: Tensor, found: Encoded) -> tuple[Tensor, ...]:
        loss = (found.final * torch.arange(6)).sin().sum() + found.initial.square().sum()
        return *found, *torch.autograd.grad(loss, [x, *of.parameters()])

    expected = with_gradients(plain, x := nodes(), plain.at(x, PLACES))
    found = with_gradients(encoder, x := nodes(), sampled(encoder, x, PLACES))
    for ours, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-5)


def test_layers_may_be_bfloat16() -> None:
    exact, rounded = (sampled(built(COUNT, storage=kind), nodes(), PLACES).final for kind in Storage)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_a_sample_is_right_on_average_and_changes_with_the_batch() -> None:
    encoder, x = built(2), nodes().detach()
    expected = LightGCNConfig().build(GRAPH, CPU)(x)
    others = torch.arange(1, 60)
    found = torch.stack([sampled(encoder, x, torch.cat([PLACES, others[:n], others[k::7]])).final[:7]
                         for n in range(59) for k in range(60)])  # fmt: skip
    assert found.std(0)[[0, 1, 5, 6]].min() > 0.01
    error = (found.mean(0) - expected[PLACES]) / (found.std(0) / len(found) ** 0.5).clamp(min=1e-6)
    assert float(error.abs().max()) < 4.5, "standard errors from the mean"
    again = (sampled(encoder, x, PLACES).final for _ in range(2))
    assert torch.equal(*again), "a restart draws the same"


@pytest.mark.parametrize("count", [1, 3, 6])
def test_neighbours_are_taken_once_each_alike_often(count: int) -> None:
    offsets, columns = torch.tensor([0, 7, 7, 9]), torch.tensor([0, 2, 3, 5, 6, 8, 9, 1, 4])
    matrix = SparseRows(offsets.int(), columns.int(), torch.ones(9))
    generator, times, asked = torch.Generator().manual_seed(1), torch.zeros(10), torch.tensor([2, 0, 1, 0])
    for _ in range(3000):
        found = sample_neighbors(matrix, asked, count, generator)
        kept = min(count, 2)
        assert found.offsets.tolist() == [0, kept, kept + count, kept + count, kept + 2 * count]
        first = found.columns[kept : kept + count]
        assert first.unique().numel() == count and set(first.tolist()) <= {0, 2, 3, 5, 6, 8, 9}
        times.index_add_(0, found.columns, found.values)
    assert torch.equal(times[7:8], torch.zeros(1))
    expected = torch.tensor([2, 1, 2, 2, 1, 2, 2, 0, 2, 2.0])  # row 0 was asked for twice
    torch.testing.assert_close(times / 3000, expected, rtol=0.12, atol=0)


def test_a_batch_reaches_no_more_than_its_fan_out() -> None:
    reached = built(2).reached(torch.tensor([5, 70]))
    assert reached.nodes.numel() <= 2 * (1 + 2 + 4 + 8)
    assert torch.equal(reached.nodes, reached.nodes.unique())
    assert graph_of(GRAPH).num_rows == COUNT


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"fan_out": 0}])
def test_impossible_settings_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"retrieval.model.{next(iter(wrong))}=0"):
        SampledLightGCNConfig(**wrong)  # type: ignore[arg-type]


def test_nodes_without_neighbours_reach_themselves() -> None:
    graph = Interactions.of(torch.tensor([1]), torch.tensor([1]), num_users=3, num_items=3)
    encoder = SampledLightGCNConfig(fan_out=1).build(graph, CPU)
    reached = encoder.reached(torch.tensor([2, 5]))
    assert reached is not None and reached.nodes.tolist() == [2, 5]
    assert encoder.at_reached(torch.ones(2, 3), reached).final.tolist() == [[0.25] * 3] * 2
