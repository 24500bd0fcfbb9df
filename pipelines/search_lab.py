"""Where a search trains: a run's model and options, on the training rows, or pairs, that a search may see."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.config import Run
from pipelines.model import asked_features, build_planned, task_of
from pipelines.retrieval_model import TRAIN, build_nodes, interactions_at, retrieval_of
from pipelines.search_data import held_data, held_pairs
from pipelines.train import loaders
from recsys.core.batch import BatchSource
from recsys.core.callback import Callback
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.retrieval.node_model import NodeIds
from recsys.retrieval.ranking import Relevant
from recsys.retrieval.sampler import NegativeSampler, SamplerConfig
from recsys.retrieval.task import RetrievalTask, choose_validation
from recsys.retrieval.triples import TripleSource
from recsys.train.config import TrainConfig
from recsys.train.session import Session, shard
from recsys.train.tables import initialize_tables
from recsys.train.task import Task
from recsys.train.trainer import Trainer


@dataclass(frozen=True)
class Lab(ABC):
    """What all labs do: each trains the run's model over plans of a search, and scores it on what is held out."""

    run: Run
    device: torch.device
    folder: Path  # of checkpoints and storages

    @property
    @abstractmethod
    def task(self) -> Task:
        """Loss and score."""

    @property
    @abstractmethod
    def train(self) -> BatchSource:
        """Shuffled batches of what is not held out."""

    @property
    @abstractmethod
    def held(self) -> BatchSource:
        """Shuffled batches of what is held out."""

    @property
    @abstractmethod
    def validation(self) -> BatchSource:
        """What `task.evaluate` scores by."""

    @property
    @abstractmethod
    def looks_up_batches(self) -> bool:
        """Whether a step looks up the ids of its batch; if not, every id once."""

    @abstractmethod
    def _sharded(self, plan: TablePlan) -> Session:
        """The run's model over this plan, on its ranks, tables without values."""

    def session(self, plan: TablePlan) -> Session:
        """The run's model over this plan, on its ranks, with initial weights."""
        session = self._sharded(plan)
        initialize_tables(session.model.state_dict(), plan, seed=self.run.config.seed)
        return session

    def trainer(
        self, session: Session, plan: TablePlan, options: TrainConfig, name: str, callbacks: list[Callback]
    ) -> Trainer:
        """What trains a session, in a folder of that name."""
        trainer = Trainer(session, plan, options, self.folder / name, callbacks)
        trainer.task = self.task
        return trainer


@dataclass(frozen=True)
class RowLab(Lab):
    """Of a model of rows: clicks, or numbers."""

    looks_up_batches = True

    @cached_property
    def _data(self) -> Path:
        return held_data(self.run)

    @property
    def task(self) -> Task:
        """AUC decides, of several labels the mean; R² where labels are numbers."""
        return task_of(self.run.config, Manifest.read(self._data))

    @property
    def train(self) -> BatchSource:
        """Rows."""
        return loaders(self.run, self._data)("train", True)

    @property
    def held(self) -> BatchSource:
        """Rows."""
        return loaders(self.run, self._data)("validation", True)

    @property
    def validation(self) -> BatchSource:
        """Rows in file order."""
        return loaders(self.run, self._data)("validation", False)

    def _sharded(self, plan: TablePlan) -> Session:
        train = self.run.config.train
        built = build_planned(self.run.config, plan, Manifest.read(self._data), on_meta=True)
        return shard(built.model, train.optimizer, train.run_on, self.device)


@dataclass(frozen=True)
class NodeLab(Lab):
    """Of users and items: pairs. The graph that nodes are propagated over has none that is held out."""

    looks_up_batches = False

    @cached_property
    def _all(self) -> Interactions:
        return interactions_at(self.run, TRAIN, self.device)

    @cached_property
    def _parts(self) -> tuple[Interactions, Interactions]:
        """Pairs to train on, and held-out ones."""
        search = self.run.config.search
        assert search is not None
        return held_pairs(self._all, search.holdout, self.run.config.ingest.seed)

    @cached_property
    def _nodes(self) -> NodeIds:
        features = asked_features(self.run.config, Manifest.read(self.run.stage("ingest")))
        return NodeIds(features, rank=dist.get_rank(), device=self.device)

    @cached_property
    def task(self) -> Task:
        """Recall of held-out pairs decides."""
        config, (rest, held) = retrieval_of(self.run), self._parts
        relevant = Relevant.of(held.users, held.items, rest)
        judged = choose_validation(relevant, config.num_validation_users, self.run.config.seed)
        return RetrievalTask(config, rest, self._nodes, judged)

    @property
    def train(self) -> BatchSource:
        """Triples."""
        return self._triples(self._parts[0], retrieval_of(self.run).sampler)

    @property
    def held(self) -> BatchSource:
        """Triples, whose negatives were met neither in training nor in what is held out."""
        sampler = retrieval_of(self.run).sampler
        apart = _NegativesOf(
            positives=sampler.positives, num_negatives=sampler.num_negatives, inner=sampler, known=self._all
        )
        return self._triples(self._parts[1], apart)

    @property
    def validation(self) -> BatchSource:
        """Not read: the task has its pairs."""
        return self.train

    def _triples(self, pairs: Interactions, sampler: SamplerConfig) -> TripleSource:
        needed = retrieval_of(self.run).loss.needs_negatives
        return TripleSource(
            pairs,
            sampler,
            batch_size=self.run.config.train.batch_size,
            num_negatives=sampler.num_negatives if needed else 0,
            seed=self.run.config.seed,
        )

    def _sharded(self, plan: TablePlan) -> Session:
        train = self.run.config.train
        built = build_nodes(self.run, plan, self._parts[0], self.device)
        return shard(built.model, train.optimizer, train.run_on, self.device)


@dataclass(frozen=True, kw_only=True)
class _NegativesOf(SamplerConfig):
    """A sampler whose negatives are of other pairs than those that it is given."""

    inner: SamplerConfig
    known: Interactions

    def negatives(self, interactions: Interactions) -> NegativeSampler:
        """Those of `known`."""
        return self.inner.negatives(self.known)


def lab_of(run: Run, device: torch.device, folder: Path) -> Lab:
    """The lab of a run of rows, or of users and items."""
    return (RowLab if run.config.retrieval is None else NodeLab)(run, device, folder)
