"""Joins what rooms may not: manifest -> features -> plan -> collection -> model, trained or frozen."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from pipelines.config import Run, RunConfig
from pipelines.stage import StageKey, fingerprint, stage
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.schema import Schema
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen, load_parts, parts_of, save_parts
from recsys.models.ctr import CtrModel, MultiTask, SequenceModel
from recsys.retrieval.encoder import EncoderConfig
from recsys.train import checkpoint
from recsys.train.rating import RatingTask
from recsys.train.tables import table_of
from recsys.train.task import ClickTask

CHECKPOINTS = "checkpoints"
PARTS_NAME = "parts.pt"


@dataclass(frozen=True)
class PlannedModel:
    """A model with the plan of its tables."""

    embeddings: PlannedEmbeddingBagCollection
    model: CtrModel | SequenceModel

    @property
    def plan(self) -> TablePlan:
        """Plan of the embeddings."""
        return self.embeddings.plan

    @property
    def num_dense_parameters(self) -> int:
        """Weights outside tables."""
        tables = sum(table.num_embeddings * table.storage_dim for table in self.plan.tables)
        return sum(parameter.numel() for parameter in self.model.parameters()) - tables


def asked_features(config: RunConfig, manifest: Manifest) -> list[FeatureSpec]:
    """The embeddings that the model asks for, of clicks or of users and items.

    Raises:
        ConfigError: it has none.
    """
    columns = manifest.feature_specs()
    if config.retrieval is None:
        return config.model.features(columns)
    if not isinstance(config.retrieval.model, EncoderConfig):
        name = type(config.retrieval.model).__name__.removesuffix("Config")
        raise ConfigError(f"retrieval.model={name} is fitted without embeddings, so there are no tables to plan.")
    return config.retrieval.model.features(columns)


def plan_tables(config: RunConfig, manifest: Manifest) -> TablePlan:
    """Plan the embedding tables that the model asks for."""
    return config.embedding.plan(asked_features(config, manifest))


def build_model(config: RunConfig, manifest: Manifest, *, on_meta: bool = False) -> PlannedModel:
    """Plan and build on the CPU; weights of the dense part depend on the seed alone.

    Args:
        config: of the run.
        manifest: of the data set.
        on_meta: leave tables without memory, for sharding to allocate each rank's part.
    """
    return build_planned(config, plan_tables(config, manifest), manifest, on_meta=on_meta)


def build_planned(config: RunConfig, plan: TablePlan, manifest: Manifest, *, on_meta: bool = False) -> PlannedModel:
    """As `build_model`, with this plan of the embeddings that the model asks for."""
    torch.manual_seed(config.seed)
    head = build_head(config, plan, manifest)
    embeddings = PlannedEmbeddingBagCollection(plan, torch.device("meta") if on_meta else None)
    return PlannedModel(embeddings, join(embeddings, head))


def learned_labels(config: RunConfig, schema: Schema) -> tuple[str, ...]:
    """Labels that the model learns: all of the schema, or the main one where it has but one output."""
    return schema.labels if isinstance(config.model, MultiTask) else schema.labels[:1]


def build_head(config: RunConfig, plan: TablePlan, manifest: Manifest) -> nn.Module:
    """The head of the model over these embeddings, with an output for each label that it learns."""
    num_dense, num_labels = len(manifest.schema.numeric), len(learned_labels(config, manifest.schema))
    if num_labels > 1 and isinstance(config.model, MultiTask):
        return config.model.build_tasks(plan.outputs, num_dense, num_labels)
    return config.model.build(plan.outputs, num_dense)


def task_of(config: RunConfig, manifest: Manifest) -> ClickTask | RatingTask:
    """What the model learns of the data's labels."""
    if manifest.label is not None:
        return RatingTask(manifest.label)
    return ClickTask(learned_labels(config, manifest.schema)[1:])


def join(embeddings: PlannedEmbeddingBagCollection, head: nn.Module) -> CtrModel | SequenceModel:
    """The model of a head that reads these embeddings."""
    if any(output.pooling is Pooling.NONE for output in embeddings.plan.outputs):
        return SequenceModel(embeddings, head)
    return CtrModel(embeddings, head)


@dataclass(frozen=True)
class Trained:
    """A checkpoint as it was trained, and as it is served; both unsharded, on the CPU, in evaluation mode."""

    model: CtrModel | SequenceModel
    frozen_model: CtrModel | SequenceModel
    frozen: EmbeddingParts


def load_trained(run: Run) -> Trained:
    """Load the best checkpoint of a run and freeze its embeddings.

    Raises:
        CheckpointError: the checkpoint was trained with another plan than the configuration's.
    """
    built = build_model(run.config, Manifest.read(run.stage("ingest")), on_meta=False)
    parts = load_weights(run, built.model, built.embeddings)
    frozen = frozen_parts(run, parts)
    if frozen is parts:
        return Trained(built.model, built.model, frozen)
    return Trained(built.model, join(build_frozen(frozen), built.model.head).eval(), frozen)


def load_weights(run: Run, model: nn.Module, embeddings: PlannedEmbeddingBagCollection) -> EmbeddingParts:
    """Read the best checkpoint of a run into an unsharded model, and return the embeddings' parts.

    Raises:
        CheckpointError: the checkpoint was trained with another plan than the collection's.
    """
    best = run.stage("train") / CHECKPOINTS / "best"
    checkpoint.read_state(best, embeddings.plan)
    state = checkpoint.read_tensors(best, "model.")
    model.load_state_dict(state)
    model.eval()
    tables = {key: table for key in state if (table := table_of(key, embeddings.plan)) is not None}
    weights = {table.name: state[key][:, : table.embedding_dim].contiguous() for key, table in tables.items()}
    return parts_of(embeddings, weights)


def frozen_parts(run: Run, parts: EmbeddingParts) -> EmbeddingParts:
    """The parts as they are served: made once for all stages that need them, because clustering may take minutes."""
    plan = run.config.embedding.serving_plan(parts.plan)
    if plan == parts.plan:
        return parts
    inputs = {"train": fingerprint(run.stage("train"))}
    key = StageKey(stage="freeze", config=run.part("embedding"), inputs=inputs, resolved=run.values, shared=True)
    with stage(run.stage("freeze"), key, overwrite=run.config.overwrite) as folder:
        if folder is not None and (not dist.is_initialized() or dist.get_rank() == 0):
            frozen = run.config.embedding.freeze(parts)
            assert frozen.plan == plan, "the method froze something it had not planned"
            (folder / "plan.json").write_text(plan.to_json())
            save_parts(frozen, folder / PARTS_NAME)
    return load_parts(plan, run.stage("freeze") / PARTS_NAME)
