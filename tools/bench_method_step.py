"""Training step of each method's embeddings beside `full` tables that move the same bytes; the target is at most 2 x.

    python -m tools.bench_method_step [--only unified,mde] [--rounds 9] [--ids 50000] [--threads 2]

A step is the trainer's own: forward, backward, fused row-wise Adagrad, dense optimizer, the method's callbacks. The
head only sums the embeddings, so that nothing dilutes the ratio. "The same bytes": full tables as wide as all rows
together that the method reads of an id, padding included; a method without tables is set beside `full` of the asked
width. Contestants take turns within every round; medians are printed, and the smallest. Run it alone on the machine.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from pipelines.entry import set_up_logging
from recsys.core.batch import Batch
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.full import FullConfig
from recsys.embeddings.method import MethodConfig
from recsys.models.ctr import CtrModel
from recsys.train.config import DeviceConfig, TrainConfig
from recsys.train.session import process_group
from tools.all_methods import planned_methods, ranked
from tools.stepping import SumHead, take_turns, trainer_step

NUM_FEATURES, WIDTH, BATCH_SIZE, WIDEST = 26, 16, 4096, 1024


@dataclass(frozen=True)
class Contestant:
    """One step of a method, and the `full` that it is set beside."""

    label: str
    run: Callable[[], None]
    width: int  # of that `full`


def features(num_ids: int, width: int) -> list[FeatureSpec]:
    """The logical features."""
    return [ranked(f"C{number}", num_ids, width) for number in range(NUM_FEATURES)]


def batch(num_ids: int) -> Batch:
    """One id per row and feature, uniformly random: the caches see the worst."""
    generator = torch.Generator().manual_seed(0)
    size = NUM_FEATURES * BATCH_SIZE
    sparse = KeyedJaggedTensor(
        keys=[f"C{number}" for number in range(NUM_FEATURES)],
        values=torch.randint(num_ids, (size,), generator=generator),
        lengths=torch.ones(size, dtype=torch.int64),
    )
    labels = torch.randint(2, (BATCH_SIZE,), generator=generator).float()
    return Batch(torch.zeros(BATCH_SIZE, 0), sparse, labels)


def step(config: MethodConfig, plan: TablePlan, data: Batch, device: torch.device) -> Callable[[], None]:
    """A training step of a model with that plan."""
    run = trainer_step(
        lambda embeddings: CtrModel(embeddings, SumHead()), plan, TrainConfig(), device, config.callbacks(plan)
    )
    return lambda: run(data)


def moved_width(plan: TablePlan) -> int:
    """Values that the rows of one id hold, padding included, on average over features; a multiple of 4."""
    widths = [sum(plan.table(name).storage_dim for name in entry.tables) for entry in plan.features]
    return min(max(4, round(sum(widths) / len(widths) / 4) * 4), WIDEST) if any(widths) else WIDTH


def contestants(only: list[str], num_ids: int, data: Batch, device: torch.device) -> list[Contestant]:
    """All methods whose training differs from that of `full`; names what does not."""
    specs = features(num_ids, WIDTH)
    whole = FullConfig().plan(specs)
    found, like_full = [], []
    for method in planned_methods(specs, only):
        if method.plan == whole and not method.config.callbacks(method.plan):
            like_full.append(method.name)
            continue
        run = step(method.config, method.plan, data, device)
        found.append(Contestant(f"{method.name} {method.ratio:g}x", run, moved_width(method.plan)))
    print(f"train as full does: {', '.join(like_full) or 'none'}")
    return found


def table(found: list[Contestant], seconds: dict[str, list[float]]) -> str:
    """One line a method, the slowest beside its `full` first."""
    ratios = {
        c.label: statistics.median(seconds[c.label]) / statistics.median(seconds[f"full of {c.width}"]) for c in found
    }
    lines = [f"{'method':<30}{'ms':>9}{'best':>9}{'beside full of':>16}{'ms':>9}{'best':>9}{'ratio':>8}"]
    for c in sorted(found, key=lambda contestant: -ratios[contestant.label]):
        own, other = (
            f"{statistics.median(taken) * 1e3:>9.1f}{min(taken) * 1e3:>9.1f}"
            for taken in (seconds[c.label], seconds[f"full of {c.width}"])
        )
        lines.append(f"{c.label:<30}{own}{c.width:>16}{other}{ratios[c.label]:>8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods, separated by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ids", type=int, default=50_000, help="of each feature")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_up_logging()
    with process_group(DeviceConfig(num_threads=options.threads)) as device:
        data = batch(options.ids)
        found = contestants([name for name in options.only.split(",") if name], options.ids, data, device)
        runs = {contestant.label: contestant.run for contestant in found}
        for width in sorted({contestant.width for contestant in found}):
            plan = FullConfig().plan(features(options.ids, width))
            runs[f"full of {width}"] = step(FullConfig(), plan, data, device)
        load = os.getloadavg()[0]
        seconds = take_turns(runs, options.rounds)
    print(
        f"{NUM_FEATURES} features x {options.ids:,} ids of width {WIDTH}, batch {BATCH_SIZE}, load before: {load:.1f}"
    )
    print(table(found, seconds))


if __name__ == "__main__":
    main()
