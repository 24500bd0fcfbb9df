"""Joins what rooms may not: manifest -> features -> plan -> collection -> model."""

from dataclasses import dataclass

import torch

from pipelines.config import RunConfig
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.models.ctr import CtrModel


@dataclass(frozen=True)
class PlannedModel:
    """A model with the plan of its tables."""

    embeddings: PlannedEmbeddingBagCollection
    model: CtrModel

    @property
    def plan(self) -> TablePlan:
        """Plan of the embeddings."""
        return self.embeddings.plan

    @property
    def num_dense_parameters(self) -> int:
        """Weights outside tables."""
        tables = sum(table.num_embeddings * table.storage_dim for table in self.plan.tables)
        return sum(parameter.numel() for parameter in self.model.parameters()) - tables


def plan_tables(config: RunConfig, manifest: Manifest) -> TablePlan:
    """Plan the embedding tables that the model asks for."""
    columns = [manifest.feature_spec(feature, embedding_dim=1) for feature in manifest.schema.categorical]
    return config.embedding.plan(config.model.features(columns))


def build_model(config: RunConfig, manifest: Manifest, *, on_meta: bool = False) -> PlannedModel:
    """Plan and build on the CPU; weights of the dense part depend on the seed alone.

    Args:
        config: of the run.
        manifest: of the data set.
        on_meta: leave tables without memory, for sharding to allocate each rank's part.
    """
    plan = plan_tables(config, manifest)
    torch.manual_seed(config.seed)
    head = config.model.build([entry.feature for entry in plan.features], len(manifest.schema.numeric))
    embeddings = PlannedEmbeddingBagCollection(plan, torch.device("meta") if on_meta else None)
    return PlannedModel(embeddings, CtrModel(embeddings, head))
