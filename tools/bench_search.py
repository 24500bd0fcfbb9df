"""How well searches find planted dimensions: the rank correlation of found widths with those planted, over seeds.

    python -m tools.bench_search [--searches optembed,dnis,pep,autodim] [--seeds 1,2,3] [--runs runs]

Each search runs by the settings of experiment=pareto/planted_dimensions, once a seed for all ratios, in a process of
its own; those that are done, also by `pipelines.pareto` of that experiment, count again. Prints Spearman's correlation
over the six planted features, mean and lowest of the seeds, and seconds of a search. Run it alone on the machine.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.pareto_cells import compose_run
from pipelines.pareto_search import SearchJob, search_jobs
from pipelines.pareto_worker import Worker
from recsys.data.planted_dimensions import PlantedDimensionsDataset
from recsys.evaluate.pareto import Searched, SearchedPlan

EXPERIMENT = "experiment=pareto/planted_dimensions"


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing their mean rank."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def rank_correlation(found: Sequence[float], planted: Sequence[float]) -> float:
    """Spearman's; 0 where one of them does not vary, which finds nothing."""
    if len(set(found)) == 1 or len(set(planted)) == 1:
        return 0.0
    return statistics.correlation(ranks(found), ranks(planted))


def found_widths(plan: SearchedPlan) -> dict[str, float]:
    """Mean width of each feature."""
    return {
        each.feature: sum(size * width for size, width in each.pieces) / sum(size for size, _ in each.pieces)
        for each in plan.features
    }


def searched(jobs: Sequence[SearchJob], worker: Worker) -> list[Searched]:
    """Do the searches.

    Raises:
        SystemExit: one failed.
    """
    for job in jobs:
        log = job.run.folder / "log.txt"
        message = worker.do(job.overrides, ["search"], log)
        if message:
            raise SystemExit(f"{job.name}: {message} {log} has all of it.")
    return [job.searched() for job in jobs]


def table_of(done: Sequence[Searched], planted: dict[str, int]) -> Table:
    """A row for each search and ratio."""
    table = Table(title="rank correlation of found with planted dimensions")
    for name in ("search", "smaller", "mean", "lowest", "seeds", "seconds", "widths at the first seed"):
        table.add_column(name, justify="left" if name in ("search", "widths at the first seed") else "right")
    for method in dict.fromkeys(each.method for each in done):
        own = [each for each in done if each.method == method]
        for number, plan in enumerate(own[0].plans):
            widths = [found_widths(each.plans[number]) for each in own]
            found = [rank_correlation([one[name] for name in planted], list(planted.values())) for one in widths]
            table.add_row(
                method,
                f"{plan.ratio:g}x",
                f"{statistics.fmean(found):.3f}",
                f"{min(found):.3f}",
                str(len(found)),
                f"{statistics.fmean(each.seconds for each in own):.1f}",
                " ".join(f"{widths[0][name]:.1f}" for name in planted),
            )
    return table


def main() -> None:
    """Search, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", default="optembed,dnis,pep,autodim")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    base, runs = (EXPERIMENT,), str(options.runs)
    given = [f"pareto.searches=[{options.searches}]", f"pareto.seeds=[{options.seeds}]"]
    run = compose_run([*base, *given, f"runs={runs}"])
    assert run.config.pareto is not None and isinstance(run.config.dataset, PlantedDimensionsDataset)
    worker = Worker()
    message = worker.do([*base, f"runs={runs}"], ["ingest"], run.folder / "ingest.log")
    if message:
        raise SystemExit(message)
    jobs, _, _ = search_jobs(run.config.pareto, base=base, sweep=run.config.name, runs=runs)
    Console(width=120).print(table_of(searched(jobs, worker), run.config.dataset.planted))


if __name__ == "__main__":
    main()
