"""Every retrieval model and sampler on awkward graphs: nodes without edges, one pair, equal user and item ids."""

from pathlib import Path
from typing import TypeVar, cast

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.interactions import Interactions
from recsys.core.jsonable import build_config
from recsys.retrieval.encoder import Encoded, EncoderConfig, FittedConfig, RetrieverConfig
from recsys.retrieval.sampler import SamplerConfig
from tests.pipelines.world import composed

CONF = Path(__file__).resolve().parents[2] / "conf" / "retrieval"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
SAMPLERS = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
NARROW = {"embedding_dim": 4, "num_vectors": 2, "num_neighbors": 2}
Kind = TypeVar("Kind")
GRAPHS = {
    # user 4 met nothing, nobody met items 3 and 6; users 1, 2, 3 met items of their own ids: these are no loops
    "isolated": Interactions.of(
        torch.tensor([1, 1, 2, 2, 3, 3, 3]), torch.tensor([1, 5, 2, 5, 3 - 2, 3 + 1, 5]), num_users=5, num_items=7
    ),
    "one_pair": Interactions.of(torch.tensor([1]), torch.tensor([1]), num_users=2, num_items=4),
}


def configured(part: str, name: str, base: type[Kind]) -> Kind:
    composition = composed("retrieval=default", f"retrieval/{part}={name}", "dataset=gowalla", "name=x")
    values = cast(dict[str, object], OmegaConf.to_container(composition.retrieval[part], resolve=True))
    return build_config(base, {**values, **{k: v for k, v in NARROW.items() if k in values}}, key=part)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_are_finite(name: str, graph: Interactions) -> None:
    config = configured("model", name, RetrieverConfig)
    users = torch.arange(graph.num_users)
    if isinstance(config, FittedConfig):
        scores = config.fit(graph)(users, *graph.of_users(users))
        assert scores.shape == (graph.num_users, graph.num_items) and bool(scores.isfinite().all())
        return
    assert isinstance(config, EncoderConfig)
    encoder = config.build(graph, torch.device("cpu"))
    nodes = torch.randn(graph.num_users + graph.num_items, 4).requires_grad_()
    final = encoder(nodes)
    own = encoder.auxiliary(Encoded(nodes, final), torch.tensor([1]), torch.tensor([graph.num_users + 1]), lambda x: x)
    loss = final.square().sum() + (0 if own is None else own)
    loss.backward()
    folded = encoder.fold_in(nodes.detach())
    assert nodes.grad is not None
    for tensor in (final.detach(), folded.detach(), nodes.grad, loss.detach()):
        assert bool(tensor.isfinite().all())


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_users_without_items_get_negatives_too(name: str, graph: Interactions) -> None:
    config = configured("sampler", name, SamplerConfig)  # type: ignore[type-abstract]
    sampler = config.negatives(graph)
    users = torch.arange(1, graph.num_users)
    drawn = sampler.draw(users, 3, torch.Generator().manual_seed(0))
    assert int(drawn.min()) >= 1 and int(drawn.max()) < graph.num_items
    assert not bool(graph.contains(users.unsqueeze(1), drawn).any())
