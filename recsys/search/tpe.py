"""`tpe`: tree-structured Parzen estimators of good settings (Bergstra et al., NeurIPS 2011), by Optuna."""

from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.core.errors import ConfigError
from recsys.search.choice import Space
from recsys.search.method import Found, Score, TrialSearch
from recsys.search.proportions import REACH, Setting, Way, choice_of

EXPONENT = "exponent"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class TpeConfig(TrialSearch):
    """As `random`, from the same space and with the same first trial, but each draw learns from those before.

    A trial whose learning curve lies below the median of the earlier ones at the same rung is not trained further.
    Optuna's journal is the storage: trials that ended count after a restart, the one that was killed is made again.
    """

    startup_trials: int = 6  # at random, and never pruned

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.startup_trials < 1:
            raise ConfigError(f"search.startup_trials={self.startup_trials}: must be 1 or more.")

    def find(self, space: Space, score: Score, budget_bytes: int, *, seed: int, storage: Path) -> Found:
        """Score trials, few of them to the end, and take the best of those."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = JournalStorage(JournalFileBackend(str(storage)))
        study = optuna.create_study(storage=journal, study_name="search", direction="maximize", load_if_exists=True)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # killed with the process; TPE does not look at these
        while (ended := len(study.get_trials(states=ENDED))) < self.trials:
            # A sampler of its own for each trial: what a trial draws depends on the seed and on those that ended.
            study.sampler = optuna.samplers.TPESampler(seed=seed + ended, n_startup_trials=self.startup_trials)
            study.pruner = optuna.pruners.MedianPruner(n_startup_trials=self.startup_trials)
            if not ended:
                study.enqueue_trial(self._first(space))
            self._try(study, space, score, budget_bytes)
        best: FrozenTrial = study.best_trial
        choice = choice_of(space, budget_bytes, self._setting(best, len(space.features)))
        return Found(budget_bytes=budget_bytes, choice=choice, score=best.value)

    def _try(self, study: optuna.Study, space: Space, score: Score, budget_bytes: int) -> None:
        trial = study.ask()
        choice = choice_of(space, budget_bytes, self._setting(trial, len(space.features)))
        value = float("nan")
        for rung, value in enumerate(score(choice)):
            trial.report(value, rung)
            if rung < self.rungs - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
        study.tell(trial, value)

    def _setting(self, trial: Trial | FrozenTrial, num_features: int) -> Setting:
        """What a trial draws, or has drawn."""
        names = [way.value for way in self.ways]
        exponent = trial.suggest_float(EXPONENT, 0.0, 1.0)
        weights = tuple(trial.suggest_float(f"weight_{n}", -REACH, REACH) for n in range(num_features))
        ways = tuple(Way(trial.suggest_categorical(f"way_{n}", names)) for n in range(num_features))
        return Setting(exponent, weights, ways)

    def _first(self, space: Space) -> dict[str, float | str]:
        """Parameters of the first trial."""
        first = Setting.first(space, self.ways)
        weights = {f"weight_{number}": weight for number, weight in enumerate(first.weights)}
        return {EXPONENT: first.exponent, **weights, **{f"way_{n}": way.value for n, way in enumerate(first.ways)}}
