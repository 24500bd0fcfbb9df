"""What callbacks of embedding methods are told in a retrieval step: every node once, whatever the triples are."""

from typing import Any

import torch

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.specs import FeatureSpec
from recsys.retrieval.node_model import NodeIds
from recsys.retrieval.on_nodes import OnNodes
from recsys.retrieval.triples import TripleSource
from recsys.retrieval.uniform import UniformConfig
from tests.retrieval.world import interactions


class Told(Callback):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        self.said.append(batch)

    def penalty(self, session: TrainingSession, rows: int) -> torch.Tensor | None:
        self.said.append(rows)
        return torch.ones(())

    def state_dict(self) -> dict[str, Any]:
        return {"said": len(self.said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.said = [state]


class Session:
    device, rank, world_size = torch.device("cpu"), 0, 1


def test_callbacks_see_all_nodes() -> None:
    graph = interactions()
    features = [
        FeatureSpec(name=name, embedding_dim=4, num_embeddings=count)
        for name, count in (("user", graph.num_users), ("item", graph.num_items))
    ]
    nodes, told = NodeIds(features, rank=0, device=torch.device("cpu")), Told()
    callback, session = OnNodes(told, nodes), Session()
    batch = next(TripleSource(graph, UniformConfig(), batch_size=9, num_negatives=2, seed=1).epoch(0))
    callback.on_step_start(session, 1, batch)  # type: ignore[arg-type]
    ids = told.said[0].sparse.to_dict()
    assert torch.equal(ids["user"].values(), torch.arange(graph.num_users))
    assert torch.equal(ids["item"].values(), torch.arange(graph.num_items))
    assert told.said[0].labels.numel() == max(graph.num_users, graph.num_items) == len(ids["item"].lengths())
    assert callback.penalty(session, 9) is not None  # type: ignore[arg-type]
    assert told.said[1] == max(graph.num_users, graph.num_items)
    assert callback.state_dict() == {"said": 2}
    callback.load_state_dict({"said": 7})
    assert told.said == [{"said": 7}]
