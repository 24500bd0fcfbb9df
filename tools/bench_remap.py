"""Logical ids per second that each method's remap turns into rows; the target of hash-type methods is 100 million.

    python -m tools.bench_remap [--only hash,unified] [--rounds 9] [--threads 2]

Remaps take turns within every round, so that a busy machine slows all of them alike; medians are printed, and beside
them the best round, which a busy machine hides least. The last column counts CPU time on one thread, whatever else
runs. A remap with T look-ups makes T rows of every id. Run it alone on the machine.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from recsys.core.plan import TablePlan
from tools.all_methods import planned_methods, ranked
from tools.stepping import take_turns

NUM_IDS = (1 << 20, 1 << 22)
VOCABULARY = 1_000_003
MOST_ROWS = 1 << 25
"""Larger outputs are not measured: they would speak of memory only."""


def remaps(only: list[str]) -> Iterator[tuple[str, nn.Module, int]]:
    """(label, remap, look-ups) of each method in training, and in serving where that is another."""
    feature = ranked("item", VOCABULARY, 16)
    seen: set[str] = set()
    for method in planned_methods([feature], only):
        stages = {"": method.plan, ", served": method.config.serving_plan(method.plan)}
        for stage, plan in stages.items():
            text = repr(plan.features[0].remap)
            if text not in seen and plan.features[0].tables:
                seen.add(text)
                yield _labelled(f"{method.name} {method.ratio:g}x{stage}", plan)


def _labelled(label: str, plan: TablePlan) -> tuple[str, nn.Module, int]:
    (entry,) = plan.features
    return f"{label} ({entry.remap.target.rpartition('.')[2]})", entry.remap.build(), len(entry.tables)


def measure(contestants: Mapping[str, nn.Module], ids: Tensor, num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, after one that does not count; of the CPU, where torch has one thread."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.thread_time
    with torch.no_grad():
        return take_turns(
            {label: partial(remap, ids) for label, remap in contestants.items()}, num_rounds, warm_up=1, clock=clock
        )


def columns(found: list[tuple[str, nn.Module, int]], num_rounds: int, num_threads: int) -> dict[str, list[str]]:
    """Cells of the table by label: one column a number of ids, then the time on a core alone."""
    cells: dict[str, list[str]] = {label: [] for label, _, _ in found}
    for num_ids, threads in (*((n, num_threads) for n in NUM_IDS), (NUM_IDS[0], 1)):
        torch.set_num_threads(threads)
        ids = torch.randint(VOCABULARY, (num_ids,), generator=torch.Generator().manual_seed(0))
        fitting = {label: remap for label, remap, count in found if count * num_ids <= MOST_ROWS}
        measured = measure(fitting, ids, num_rounds)
        for label, own in cells.items():
            rates = sorted(num_ids / value / 1e6 for value in measured.get(label, []))
            own.append(f"{statistics.median(rates):,.0f} ({rates[-1]:,.0f})" if rates else "-")
    return cells


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods, separated by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    found = list(remaps([name for name in options.only.split(",") if name]))
    print(f"{options.threads} threads, {options.rounds} rounds, load of the machine before: {os.getloadavg()[0]:.1f}")
    print("million ids a second, median (best)")
    heads = [*(f"{n:,} ids" for n in NUM_IDS), "of one core's time"]
    print(f"{'remap':<46}{'T':>3}" + "".join(f"{head:>20}" for head in heads))
    cells = columns(found, options.rounds, options.threads)
    for label, _, count in found:
        print(f"{label:<46}{count:>3}" + "".join(f"{cell:>20}" for cell in cells[label]))


if __name__ == "__main__":
    main()
