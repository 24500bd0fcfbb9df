"""Joins what rooms may not, for retrieval: interactions -> plan -> node model, trained or frozen -> recommender."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.config import Run
from pipelines.model import frozen_parts, load_weights
from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.data.interactions import read_interactions, sizes
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen
from recsys.retrieval.config import RetrievalConfig
from recsys.retrieval.dimension_shards import check_width
from recsys.retrieval.encoder import EncoderConfig, FittedConfig
from recsys.retrieval.node_model import NodeIds, NodeModel
from recsys.retrieval.recommender import Recommender, load_recommender
from recsys.retrieval.task import recommender_of

RECOMMENDER_NAME = "recommender.pt"
TRAIN, KNOWN = ("train",), ("train", "validation")
"""Splits that choose the epoch, and all that is known before the test."""


@dataclass(frozen=True)
class BuiltNodes:
    """A node model with its plan and the nodes it looks up."""

    embeddings: PlannedEmbeddingBagCollection
    model: NodeModel
    nodes: NodeIds

    @property
    def plan(self) -> TablePlan:
        """Plan of the embeddings."""
        return self.embeddings.plan


def retrieval_of(run: Run) -> RetrievalConfig:
    """The run's retrieval options.

    Raises:
        ConfigError: it has none.
    """
    if run.config.retrieval is None:
        raise ConfigError("this run trains a model of clicks. Choose retrieval=default for users and items.")
    return run.config.retrieval


def trained_splits(run: Run) -> tuple[str, ...]:
    """Splits that the served model has learned from: what is fitted needs no validation."""
    config = retrieval_of(run)
    return KNOWN if config.refit or isinstance(config.model, FittedConfig) else TRAIN


def plan_nodes(run: Run, manifest: Manifest) -> TablePlan | None:
    """Plan of user and item embeddings; None of a model that has none."""
    sizes(manifest)
    model = retrieval_of(run).model
    if not isinstance(model, EncoderConfig):
        return None
    return run.config.embedding.plan(model.features(manifest.feature_specs()))


def build_nodes(run: Run, plan: TablePlan, interactions: Interactions, device: torch.device) -> BuiltNodes:
    """The node model of a plan, its tables without memory, for sharding to allocate each rank's part."""
    model = retrieval_of(run).model
    assert isinstance(model, EncoderConfig)
    check_width(model.embedding_dim)
    torch.manual_seed(run.config.seed)
    encoder = model.build(interactions, device)
    embeddings = PlannedEmbeddingBagCollection(plan, torch.device("meta"))
    rank = dist.get_rank() if dist.is_initialized() else 0
    return BuiltNodes(embeddings, NodeModel(embeddings, encoder), NodeIds(plan.outputs, rank=rank, device=device))


def load_served(run: Run) -> tuple[Recommender, TablePlan | None]:
    """What a run serves, whole on the CPU, and the plan of its embeddings as they are served; None without any."""
    config, data = retrieval_of(run), run.stage("ingest")
    plan = plan_nodes(run, Manifest.read(data))
    if plan is None:
        return load_recommender(run.stage("train") / RECOMMENDER_NAME), None
    interactions = read_interactions(data, trained_splits(run))
    device = torch.device("cpu")
    assert isinstance(config.model, EncoderConfig)
    encoder = config.model.build(interactions, device)
    embeddings = PlannedEmbeddingBagCollection(plan)
    model = NodeModel(embeddings, encoder)
    parts = load_weights(run, model, embeddings)
    frozen = frozen_parts(run, parts)
    if frozen is not parts:
        model = NodeModel(build_frozen(frozen), encoder)
    nodes = NodeIds(frozen.plan.outputs, rank=0, device=device)
    return recommender_of(model, nodes, config), frozen.plan


def interactions_at(run: Run, splits: tuple[str, ...], device: torch.device) -> Interactions:
    """Pairs of some splits of the run's data on a device."""
    return moved(read_interactions(Path(run.stage("ingest")), splits), device)


def moved(interactions: Interactions, device: torch.device) -> Interactions:
    """The same pairs on a device."""
    users, items = interactions.users.to(device), interactions.items.to(device)
    return Interactions(users, items, interactions.num_users, interactions.num_items)
