"""The cells of a sweep: which overrides make each, which budgets a method refuses, which cells can share a training."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pipelines.config import Run, load
from pipelines.entry import CONFIG_FOLDER, told
from pipelines.pareto_config import ParetoConfig, Trial
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.evaluate.pareto import Cell, Refusal

logger = logging.getLogger(__name__)

OWN_KEYS = ("name", "seed", "embedding", "runs", "pareto")
"""Overrides of the sweep's own command line that its cells do not take over: they set these themselves."""


@dataclass(frozen=True, kw_only=True)
class PlannedBudget:
    """A method at a budget that it meets."""

    method: str
    ratio: float
    overrides: tuple[str, ...]
    served: str  # equal for two budgets of a method that serve the same
    trained: str  # equal for all that train the same tables, to serve them in different forms; else unique
    frozen: bool  # what is served is not what was trained
    plan_path: str = ""  # of a search's plan, with {seed} for the seed
    trained_by: str = ""  # name of the run that holds the training of these cells, with {seed} for the seed


@dataclass(frozen=True, kw_only=True)
class Job:
    """One cell to be done, with the stages that it needs."""

    budget: PlannedBudget
    trial: Trial
    seed: int
    sweep: str  # name of the sweep, below which its runs are named
    base: tuple[str, ...] = field(default=())  # overrides that all cells have in common
    runs: str = "runs"
    trained_by: str = ""  # name of the run whose training this one uses; empty: its own

    @property
    def name(self) -> str:
        """Name of the run."""
        trial = f"_{self.trial.label}" if self.trial.label else ""
        return f"{self.sweep}/cells/{self.budget.method}/{self.budget.ratio:g}x{trial}_seed{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """All of the command line."""
        shared = [f"from={self.trained_by}"] if self.trained_by else []
        plan = [f"embedding.path={self.budget.plan_path.format(seed=self.seed)}"] if self.budget.plan_path else []
        own = [f"seed={self.seed}", f"name={self.name}", f"runs={self.runs}"]
        return [*self.base, *self.budget.overrides, *plan, *self.trial.overrides, *shared, *own]

    @cached_property
    def cell(self) -> Cell:
        """As the report names it."""
        command = f"python -m pipelines.{'compress' if self.trained_by else 'run'}"
        return Cell(
            method=self.budget.method,
            ratio=self.budget.ratio,
            seed=self.seed,
            trial=self.trial.label,
            run=self.name,
            command=" ".join([command, *(quoted(text) for text in self.overrides)]),
        )


def compose_run(overrides: Sequence[str]) -> Run:
    """What `pipelines.run` would make of these overrides.

    Raises:
        ConfigError: they do not compose, or something in them is impossible.
    """
    before = HydraConfig.instance().cfg
    try:
        composed = _composed(overrides)
        HydraConfig.instance().set_config(composed)
        return load(DictConfig({key: composed[key] for key in composed if key != "hydra"}))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(told(error, overrides)) from error
    finally:
        HydraConfig.instance().cfg = before


def _composed(overrides: Sequence[str]) -> DictConfig:
    if GlobalHydra.instance().is_initialized():  # below `hydra.main`
        return compose("config", overrides=list(overrides), return_hydra_config=True)
    with initialize_config_dir(version_base="1.3", config_dir=CONFIG_FOLDER):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def base_overrides(given: Sequence[str]) -> tuple[str, ...]:
    """Of the sweep's command line, what its cells share."""
    return tuple(text for text in given if re.split(r"[=.@]", text.lstrip("+~"))[0] not in OWN_KEYS or _of_all(text))


def _of_all(text: str) -> bool:
    """True for `embedding.key=value`, which the sweep's author wants for every method."""
    return text.lstrip("+~").startswith("embedding.")


def plan_budget(
    method: str, ratio: float, *, base: Sequence[str], config: ParetoConfig, manifest: Manifest
) -> PlannedBudget | Refusal:
    """Plan one method at one budget, without training anything.

    Raises:
        ConfigError: there is no such method or option: nothing that another budget would mend.
    """
    overrides = (*config.method_overrides(method), f"embedding.compression_ratio={ratio:g}")
    run = compose_run([*base, *overrides, "name=planned"])
    columns = manifest.feature_specs()
    embedding = run.config.embedding
    try:
        plan = embedding.plan(run.config.model.features(columns))
        serving = embedding.serving_plan(plan)
    except ConfigError as error:
        return Refusal(method=method, ratio=ratio, floor_bytes=told_floor(str(error)), message=str(error))
    except Exception as error:  # a bug in one method, which the page tells; the other methods go on
        logger.exception("%s at %g× cannot be planned", method, ratio)
        return Refusal(method=method, ratio=ratio, floor_bytes=None, message=f"{type(error).__name__}: {error}")
    elsewhere = [key for key in config.overrides.get(method, {}) if key.partition(".")[0] != "embedding"]
    alone = elsewhere or embedding.callbacks(plan) or embedding.files()
    return PlannedBudget(
        method=method,
        ratio=ratio,
        overrides=overrides,
        served=f"{plan.fingerprint}/{serving.fingerprint}",
        trained=f"{method}/{ratio:g}" if alone else plan.fingerprint,
        frozen=serving != plan,
    )


def without_repeats(budgets: Sequence[PlannedBudget]) -> list[PlannedBudget]:
    """Of the budgets of each method that give the same plan, the smallest alone: a fixed format is one point."""
    last = {(budget.method, budget.served): budget for budget in sorted(budgets, key=lambda budget: budget.ratio)}
    return [budget for budget in budgets if last[budget.method, budget.served] is budget]


class Sharing:
    """Which run's training a job may use: that of the first job with the same tables, trial and seed.

    Methods that act after training differ in what they serve alone, so one training does for all of them.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, Trial, int], str] = {}

    def applied(self, job: Job) -> Job:
        """The job, told whose training to use if there is one."""
        if job.budget.trained_by:
            return replace(job, trained_by=job.budget.trained_by.format(seed=job.seed))
        key = (job.budget.trained, job.trial, job.seed)
        first = self._first.setdefault(key, job.name)
        return job if first == job.name else replace(job, trained_by=first)


def trial_jobs(job: Job, trials: Sequence[Trial]) -> Iterator[Job]:
    """The same cell under every trial."""
    return (replace(job, trial=trial) for trial in trials)


def told_floor(message: str) -> int | None:
    """Bytes that a refusal names as what the smallest plan needs."""
    found = re.search(r"(?:needs|below the floor of) ([\d,]+)", message)
    return int(found[1].replace(",", "")) if found else None


def quoted(text: str) -> str:
    """An override as a shell reads it."""
    return f"'{text}'" if re.search(r"[^\w.=,/+:@-]", text) else text
