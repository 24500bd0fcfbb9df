"""What a search trains: plans for a while, from scratch, and supernets once; scored on what is held out."""

import shutil
from collections.abc import Iterator
from dataclasses import replace

import torch.distributed as dist

from pipelines.search_data import Rungs
from pipelines.search_lab import Lab
from recsys.search.choice import Choice, Space
from recsys.search.method import Found, SupernetSearch, Supervision, TrialSearch
from recsys.search.plans import plan_of
from recsys.train import checkpoint
from recsys.train.config import TrainConfig
from recsys.train.session import Session

STORAGE = "storage"
"""Begins the name of files of what was scored, which a search that was killed goes on with."""

SUPERNET = "supernet"
"""Folder of a supernet's checkpoints, of which `LAST` is searched."""

LAST = "last"


def search_by_trials(lab: Lab, search: TrialSearch, space: Space, budgets: list[int]) -> list[Found]:
    """A choice within each budget; the first rank searches, the others train along."""
    trials = Trials(lab, search, space)
    seed = lab.run.config.seed
    if dist.get_rank():
        trials.follow()
        return []
    try:
        storages = [lab.folder / f"{STORAGE}_{budget}.jsonl" for budget in budgets]
        return [
            search.find(space, trials.curve, budget, seed=seed, storage=storage)
            for budget, storage in zip(budgets, storages, strict=True)
        ]
    finally:
        trials.end()


class Trials:
    """Short trainings of plans, each on the same batches from the same seed."""

    def __init__(self, lab: Lab, search: TrialSearch, space: Space) -> None:
        self._lab, self._search, self._space = lab, search, space

    def curve(self, choice: Choice) -> Iterator[float]:
        """Score on what is held out after each rung; on the first rank, which tells the others."""
        _tell(choice)
        for value in self._train(choice):
            yield value
            _tell("go on")

    def follow(self) -> None:
        """Train what the first rank trains, as far as it does, until it ends."""
        curve: Iterator[float] | None = None
        while (told := _tell(None)) != "end":
            if isinstance(told, Choice):
                curve = self._train(told)
            if curve is not None:
                next(curve, None)

    def end(self) -> None:
        """Let the others go."""
        _tell("end")

    def _train(self, choice: Choice) -> Iterator[float]:
        lab, search = self._lab, self._search
        plan, config = plan_of(self._space, choice), lab.run.config
        if dist.get_rank() == 0:
            shutil.rmtree(lab.folder / "trial", ignore_errors=True)
        dist.barrier()
        train, validation = Rungs(lab.train, search.steps_per_rung), lab.validation
        session = lab.session(plan)
        for rung in range(1, search.rungs + 1):
            options = replace(config.train, epochs=rung, plateau=None, checkpoint_every=0)
            trainer = lab.trainer(session, plan, options, "trial", [])
            yield trainer.run(train, validation, seed=config.seed).history[-1][trainer.task.monitor]


def _tell(message: Choice | str | None) -> Choice | str | None:
    """The first rank's message, on all ranks."""
    if dist.get_world_size() == 1:
        return message
    box: list[Choice | str | None] = [message]
    dist.broadcast_object_list(box)
    return box[0]


class TrainedSupernet:
    """A supernet with what scores it."""

    def __init__(self, session: Session, lab: Lab) -> None:
        self._session, self._task, self._source = session, lab.task, lab.validation

    @property
    def session(self) -> Session:
        """Of this rank."""
        return self._session

    def score(self) -> float:
        """On what is held out, of the masks as they are."""
        return self._task.evaluate(self._session, self._source)[self._task.monitor]


def search_supernet(lab: Lab, search: SupernetSearch, space: Space, budgets: list[int]) -> list[Found]:
    """Train one supernet, or go on with it, and search it, as its last epoch leaves it, for all budgets."""
    plan, config = search.supernet(space), lab.run.config
    session = lab.session(plan)
    train, task = lab.train, lab.task
    options = _to_the_end(config.train, search.epochs or config.train.epochs)
    given = Supervision(
        held=lab.held,
        num_steps=options.epochs * train.num_batches,
        seed=config.seed,
        loss_sum=lambda model, batch: task.loss_sum(model, batch).objective,
        looks_up_batches=lab.looks_up_batches,
    )
    trainer = lab.trainer(session, plan, options, SUPERNET, search.callbacks(space, given))
    trainer.run(train, lab.validation, seed=config.seed)
    last = checkpoint.find(lab.folder / SUPERNET / LAST)
    assert last is not None
    checkpoint.load(last, {"model": session.model.state_dict()})  # the trainer ends with the best epoch's weights
    session.weights_loaded()
    storage = lab.folder / f"{STORAGE}.jsonl"
    return search.find(space, TrainedSupernet(session, lab), budgets, seed=config.seed, storage=storage)


def _to_the_end(options: TrainConfig, epochs: int) -> TrainConfig:
    """These options for all of so many epochs; a plateau lowers rates as ever, and stops nothing."""
    plateau = options.plateau
    return replace(options, epochs=epochs, plateau=plateau and replace(plateau, stop_after=epochs + 1))
