"""`python -m pipelines.search search=METHOD search.budget_mib=N`: from a data set and a model to a smaller plan."""

from pathlib import Path

import torch
from rich.console import Console

from pipelines import ingest
from pipelines.config import Run
from pipelines.entry import is_first_rank, launched_by_torchrun, relaunch, stage_main
from pipelines.model import asked_features, learned_labels
from pipelines.search_lab import lab_of
from pipelines.search_report import show, write_found
from pipelines.search_slice import write_slices
from pipelines.search_training import search_by_trials, search_supernet
from pipelines.stage import StageKey, fingerprint, stage
from pipelines.train import check_funnel
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.embeddings.full import FullConfig
from recsys.search.choice import Space
from recsys.search.method import Found, SearchConfig, SupernetSearch, TrialSearch, UntrainedSearch
from recsys.train.session import process_group

WORK = "work"
"""Folder of the stage that holds checkpoints and storages of the search."""


def work(run: Run) -> None:
    """Search on the ranks that the configuration asks for; `plan.json` of the stage is what `embedding=plan` trains.

    Raises:
        ConfigError: no search is named, another embedding is, a budget is below the search's floor, or labels do not
            follow one another as the model takes them to.
    """
    run.refuse_from()
    search, run_on = checked(run), run.config.train.run_on
    if run_on.num_processes > 1 and not launched_by_torchrun():
        ingest.work(run)
        relaunch("pipelines.search", run)
        return
    if not launched_by_torchrun():
        ingest.work(run)
    folder = search_folder(run)
    space = space_of(run, search)  # refuses a budget before anything is trained
    if run.config.retrieval is None:
        check_funnel(run, Manifest.read(run.stage("ingest")), run.stage("ingest"))
    with process_group(run_on) as device:
        with stage(folder, _key(run), overwrite=run.config.overwrite) as aside:
            if aside is not None:
                found = _search(run, space, device, aside / WORK)
                if is_first_rank():
                    lottery = isinstance(search, SupernetSearch) and search.lottery
                    ticket_seed = run.config.seed if lottery else None
                    write_found(space, found, aside, ticket_seed=ticket_seed, metric=_metric(run))
        # A served graph has all training pairs; slices of users and items learned without the held-out ones.
        slices = isinstance(search, SupernetSearch) and search.slices and run.config.retrieval is None
        sliced = write_slices(run, space, folder, device) if slices else []
    if is_first_rank():
        _show(folder, sliced)


def checked(run: Run) -> SearchConfig:
    """The search of the run.

    Raises:
        ConfigError: none is named, an embedding that plans for itself is, or tables start from given vectors.
    """
    if run.config.search is None:
        raise ConfigError(
            "search= is missing. Name a file of conf/search, such as search=optembed search.budget_mib=4."
        )
    if not isinstance(run.config.embedding, FullConfig):
        raise ConfigError(
            f"embedding={run.config.embedding.label}: a search plans the tables itself, and starts from "
            "full ones. Leave embedding= out; its result is trained with embedding=plan."
        )
    if run.config.retrieval is not None and run.config.retrieval.start is not None:
        raise ConfigError(
            "retrieval.start writes whole vectors into tables, and those of a found plan are narrow. Set "
            "retrieval/start=null."
        )
    return run.config.search


def search_folder(run: Run) -> Path:
    """Folder of the stage: one for each search of a run."""
    target: str = run.values["search"]["_target_"]
    return run.stage("search") / target.split(".")[-2]


def space_of(run: Run, search: SearchConfig) -> Space:
    """What the search may choose for the run's features.

    Raises:
        ConfigError: a feature has no vocabulary, or a budget is below the floor.
    """
    features = asked_features(run.config, Manifest.read(run.stage("ingest")))
    return search.space(features, run.config.embedding.init)


def _metric(run: Run) -> str:
    """Name of what choices are scored by."""
    if run.config.retrieval is not None:
        return f"recall at {run.config.retrieval.monitor_k}"
    manifest = Manifest.read(run.stage("ingest"))
    if manifest.label is not None:
        return "R²"
    return "AUC" if len(learned_labels(run.config, manifest.schema)) == 1 else "mean AUC of all labels"


def _show(folder: Path, sliced: list[Run]) -> None:
    """Print what was found, and how to go on."""
    show(folder, Console(highlight=False))
    print(f"{folder}: plan.json, frontier.json, frontier.md. To train it, with the same data and model:")
    print(f"  embedding=plan embedding.path={folder / 'plan.json'}")
    for each in sliced:
        path = each.values["embedding"]["path"]
        print(f"{each.stage('train')}: a plan cut out of the supernet, not trained again.")
        print(f"  to evaluate: name={each.config.name} embedding=plan embedding.path={path}")


def _key(run: Run) -> StageKey:
    return StageKey(
        stage="search",
        config={**run.part(run.kind, "train", "seed", "search"), "init": run.values["embedding"]["init"]},
        inputs={"ingest": fingerprint(run.stage("ingest"))},
        resolved=run.values,
        worth_keeping=f"{WORK}/**/*.json*",
    )


def _search(run: Run, space: Space, device: torch.device, folder: Path) -> list[Found]:
    search = run.config.search
    assert search is not None
    budgets = search.budgets(space.features)
    if isinstance(search, UntrainedSearch):
        return search.find(space, budgets)
    lab = lab_of(run, device, folder)
    folder.mkdir(exist_ok=True)
    if isinstance(search, TrialSearch):
        return search_by_trials(lab, search, space, budgets)
    assert isinstance(search, SupernetSearch), f"{type(search).__name__} is of no kind that this command knows"
    return search_supernet(lab, search, space, budgets)


main = stage_main(work)

if __name__ == "__main__":
    main()
