"""FastRP against dense powers of the graph, its law of chance, and its use as initial weights."""

import math

import pytest
import torch
from torch import Tensor

from pipelines.retrieval_callbacks import _tables
from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.retrieval.config import RetrievalConfig
from recsys.retrieval.ease import EASEConfig
from recsys.retrieval.fast_rp import FastRPConfig, Transition
from recsys.retrieval.lightgcn import LightGCNConfig
from recsys.retrieval.recommender import DotRecommender
from recsys.retrieval.warm_start import WarmStart
from tests.retrieval.test_models import adjacency
from tests.retrieval.world import interactions

GRAPH = interactions()
COUNT = GRAPH.num_users + GRAPH.num_items


@pytest.mark.parametrize("transition", list(Transition))
def test_vectors_are_weighted_powers_of_the_graph(transition: Transition) -> None:
    config = FastRPConfig(embedding_dim=70, layer_weights=(0.5, 1.0, 3.0), alpha=-0.4, transition=transition, seed=3)
    degrees = torch.cat([GRAPH.user_degrees, GRAPH.item_degrees]).double().clamp(min=1)
    m = adjacency(GRAPH)
    if transition is Transition.RANDOM_WALK:
        m = torch.diag(degrees.rsqrt()) @ m @ torch.diag(degrees.sqrt())
        present = torch.cat([GRAPH.user_degrees, GRAPH.item_degrees]) > 0
        torch.testing.assert_close(m.sum(1)[present], torch.ones(int(present.sum())).double())
    projection = torch.cat([config._projection(COUNT, first, torch.device("cpu")) for first in (0, 64)], dim=1)
    layer = torch.diag(degrees**-0.4) @ projection.double()
    expected = 0.5 * layer + m @ layer + 3 * m @ m @ layer
    passed_on = layer + 3 * m @ layer
    found = config.vectors(GRAPH)
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1].double(), passed_on, rtol=1e-4, atol=1e-5)


def test_the_projection_is_very_sparse_and_keeps_lengths() -> None:
    config = FastRPConfig(embedding_dim=64)
    drawn = config._projection(10_000, 0, torch.device("cpu"))
    assert float((drawn != 0).float().mean()) == pytest.approx(0.01, rel=0.1)
    assert float(drawn.square().sum(1).mean()) == pytest.approx(1.0, rel=0.1)
    assert abs(float(drawn.sign().sum())) < 4 * math.sqrt(float((drawn != 0).sum()))


@pytest.mark.parametrize("transition", list(Transition))
def test_a_new_user_is_ordered_for_as_a_known_one_without_a_projection(transition: Transition) -> None:
    config = FastRPConfig(embedding_dim=64, layer_weights=(0.0, 1.0), transition=transition)
    model = config.fit(GRAPH)
    assert isinstance(model, DotRecommender)
    users = torch.tensor([7, 9])
    known, new = (model(ids, *GRAPH.of_users(users)) for ids in (users, torch.zeros_like(users)))
    torch.testing.assert_close(*(torch.nn.functional.normalize(s, dim=1) for s in (new, known)), rtol=1e-4, atol=1e-5)


class Tables:
    """A session that keeps what is written."""

    device, rank, world_size = torch.device("cpu"), 0, 1

    def __init__(self) -> None:
        self.written: dict[str, tuple[Tensor, Tensor]] = {}

    def write_rows(self, table: str, rows: Tensor, values: Tensor, *, forget: bool = True) -> None:
        self.written[table] = (rows, values)


def test_tables_start_from_the_vectors_once() -> None:
    config, session = FastRPConfig(embedding_dim=8), Tables()
    callback = WarmStart(config, GRAPH, {"table_user": 0.1, "table_item": 0.1})
    callback.on_train_start(session)  # type: ignore[arg-type]
    rows, users = session.written["table_user"]
    assert torch.equal(rows, torch.arange(1, GRAPH.num_users))
    items = session.written["table_item"][1]
    assert float(torch.cat([users, items]).std()) == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(torch.nn.functional.normalize(users, dim=0), _normal(config.vectors(GRAPH)[0], users))
    again, resumed = Tables(), WarmStart(config, GRAPH, {"table_user": 0.1, "table_item": 0.1})
    resumed.load_state_dict(callback.state_dict())
    resumed.on_train_start(again)  # type: ignore[arg-type]
    assert not again.written, "a resumed training keeps what it has learned"


def _normal(vectors: Tensor, users: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors[1 : len(users) + 1], dim=0)


def test_starts_that_cannot_be_are_refused() -> None:
    features = [FeatureSpec(name=name, embedding_dim=8, num_embeddings=30) for name in ("user", "item")]
    assert _tables(FullConfig(init=Init(scale=0.2)).plan(features)) == {"table_user": 0.2, "table_item": 0.2}
    with pytest.raises(ConfigError, match="no such rows for 'user'"):
        _tables(HashConfig(compression_ratio=2).plan(features))
    with pytest.raises(ConfigError, match=r"start\.embedding_dim=64 and retrieval\.model\.embedding_dim=32"):
        RetrievalConfig(model=LightGCNConfig(embedding_dim=32), start=FastRPConfig(embedding_dim=64))
    with pytest.raises(ConfigError, match="not trained"):
        RetrievalConfig(model=EASEConfig(), start=FastRPConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim=0"),
        ({"layer_weights": (0.0, 0.0)}, r"layer_weights=\[0.0, 0.0\]"),
        ({"alpha": 0.5}, r"alpha=0.5: must lie in \[-1, 0\]"),
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FastRPConfig(**wrong)  # type: ignore[arg-type]
