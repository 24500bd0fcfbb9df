"""`tpe`: tree-structured Parzen estimators of good widths (Bergstra et al., NeurIPS 2011), by Optuna."""

from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recsys.core.errors import ConfigError
from recsys.search.choice import Space
from recsys.search.method import Found, Score, TrialSearch
from recsys.search.proportions import REACH, proportional

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
                study.enqueue_trial({EXPONENT: 0.0, **{_weight(n): 0.0 for n in range(len(space.features))}})
            self._try(study, space, score, budget_bytes)
        best: FrozenTrial = study.best_trial
        weights = [best.params[_weight(number)] for number in range(len(space.features))]
        choice = proportional(space, budget_bytes, exponent=best.params[EXPONENT], weights=weights)
        return Found(budget_bytes=budget_bytes, choice=choice, score=best.value)

    def _try(self, study: optuna.Study, space: Space, score: Score, budget_bytes: int) -> None:
        trial = study.ask()
        exponent = trial.suggest_float(EXPONENT, 0.0, 1.0)
        weights = [trial.suggest_float(_weight(number), -REACH, REACH) for number in range(len(space.features))]
        value = float("nan")
        for rung, value in enumerate(score(proportional(space, budget_bytes, exponent=exponent, weights=weights))):
            trial.report(value, rung)
            if rung < self.rungs - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
        study.tell(trial, value)


def _weight(number: int) -> str:
    return f"weight_{number}"
