"""LightGCN beside its published algorithm, its share of the memory's bandwidth, and its cost as graphs grow.

    python -m tools.bench_graph [training evaluation growth] [KEY=VALUE …] [--rounds 5] [--threads 2] [--edges N …]

All that a part compares takes turns within every round; figures are medians over rounds, the smallest in brackets.

* training: steps of `experiment=graph/gowalla_bpr` (KEY=VALUE overrides it), whole: sampling, propagation, loss,
  gradients, Adam, as the trainer makes them; with float32 and bfloat16 layers, and with the options of
  `experiment=graph/gowalla`, beside the published algorithm (`tools/published_lightgcn.py`, its sampler free here).
  Epochs are steps times the steps of an epoch. Beside them one product of the adjacency, and two limits of it: the same
  product with all rows in the nearest cache, which says what memory costs it; and the least bytes (adjacency, rows of
  the input and the output, once each) at the rate of reading 256 MiB once, its share of the memory's bandwidth.
* evaluation: lists of all users at 20 places, ours and the published way, extrapolated from some chunks.
* growth: graphs whose items' popularity follows a power law; one process a size, its largest resident memory.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipelines import ingest
from pipelines.config import Run
from pipelines.entry import set_up_logging
from pipelines.pareto_cells import compose_run
from pipelines.retrieval_model import TRAIN, interactions_at, plan_nodes
from pipelines.retrieval_train import prepared
from recsys.core.batch import Batch
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.memory import peak_mib
from recsys.core.plan import TablePlan
from recsys.ops.propagation import SparseRows, propagate_rows
from recsys.retrieval.encoder import graph_of
from recsys.retrieval.ranking import rank
from recsys.retrieval.recommender import DotRecommender
from recsys.retrieval.triples import NEGATIVE, POSITIVE, USER
from recsys.train.session import process_group
from tools.published_lightgcn import USERS_AT_ONCE, PublishedLightGCN
from tools.stepping import endless, take_turns

CPU = torch.device("cpu")
WIDTH, NUM_LAYERS, K = 64, 3, 20
READ_BYTES = 2**28
NEAR_ROWS = 64
"""16 KiB at most."""
VARIANTS = {
    "ours, float32": ("graph/gowalla_bpr", "retrieval.model.storage=float32"),
    "ours, bfloat16": ("graph/gowalla_bpr", "retrieval.model.storage=bfloat16"),
    "ours, graph/gowalla": ("graph/gowalla", "retrieval.model.storage=bfloat16"),
}
PUBLISHED = "published"


def step_of(run: Run) -> tuple[Callable[[], None], int]:
    """A training step on the next batch, its sampling included; and the steps of an epoch."""
    trainer, source = prepared(run, _plan(run), Path(tempfile.mkdtemp()) / "run", None, 1)
    batches = endless(source.epoch)
    trainer.session.model.train()
    return lambda: trainer._step(next(batches), run.config.train.batch_size), source.num_batches


def published_step(interactions: Interactions, batch: Batch) -> Callable[[], None]:
    """A step of the published algorithm on the same rows each time."""
    model = PublishedLightGCN(interactions, width=WIDTH, num_layers=NUM_LAYERS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ids = [batch.sparse[key].values() for key in (USER, POSITIVE, NEGATIVE)]

    def step() -> None:
        optimizer.zero_grad()
        model.loss(*ids).backward()
        optimizer.step()

    return step


def least_bytes(matrix: SparseRows, width: int, element_size: int) -> int:
    """What a product moves if caches lose nothing: its matrix once, each row of the input that it reads once, and its
    output once.
    """
    read = int(matrix.columns.unique().numel())
    return matrix.num_bytes + (read + matrix.num_rows) * width * element_size


def training(rounds: int, overrides: Sequence[str], console: Console) -> None:
    """Print the table of steps and epochs, then what products reach."""
    runs = {
        label: compose_run([f"experiment={name}", option, *overrides]) for label, (name, option) in VARIANTS.items()
    }
    first = next(iter(runs.values()))
    ingest.work(first)
    interactions = interactions_at(first, TRAIN, CPU)
    with process_group(first.config.train.run_on):
        steps = {label: step_of(run) for label, run in runs.items()}
        _, source = prepared(first, _plan(first), Path(tempfile.mkdtemp()) / "run", None, 1)
        contestants: dict[str, Callable[[], object]] = {label: step for label, (step, _) in steps.items()}
        contestants[PUBLISHED] = published_step(interactions, next(source.epoch(0)))
        reading = Reading.of(interactions)
        seconds = take_turns(contestants | reading.contestants(), rounds)
    counts = {label: count for label, (_, count) in steps.items()} | {PUBLISHED: source.num_batches}
    table = Table("", "ms", "an epoch's steps", "an epoch, s", f"{PUBLISHED} / this")
    for label, count in counts.items():
        epoch = statistics.median(seconds[label]) * count
        ratio = statistics.median(seconds[PUBLISHED]) * counts[PUBLISHED] / epoch
        table.add_row(label, _ms(seconds[label]), f"{count:,}", f"{epoch:.1f}", f"{ratio:.1f}")
    console.print(table)
    reading.tell(seconds, console)


@dataclass(frozen=True)
class Reading:
    """Products of an adjacency by the type of their values, beside one whose rows are near and beside memory."""

    matrices: dict[torch.dtype, SparseRows]
    memory: Tensor

    @classmethod
    def of(cls, graph: Interactions) -> "Reading":
        """Of a graph's adjacency."""
        matrix = graph_of(graph)
        kinds = (torch.float32, torch.bfloat16)
        return cls({kind: matrix.to(CPU, kind) for kind in kinds}, torch.ones(READ_BYTES // 4))

    def contestants(self) -> dict[str, Callable[[], object]]:
        """What takes turns."""
        found: dict[str, Callable[[], object]] = {"read": self.memory.sum}
        for kind, matrix in self.matrices.items():
            x = torch.randn(matrix.num_rows, WIDTH).to(kind)
            found[f"product, {kind}"] = partial(matrix.product, x)
            found[f"near, {kind}"] = partial(near(matrix).product, x)
        return found

    def tell(self, seconds: Mapping[str, Sequence[float]], console: Console) -> None:
        """Print what a product takes, and what the same reads and the least bytes would."""
        rate = READ_BYTES / statistics.median(seconds["read"])
        for kind, matrix in self.matrices.items():
            taken, close = seconds[f"product, {kind}"], seconds[f"near, {kind}"]
            median, least = statistics.median(taken), least_bytes(matrix, WIDTH, kind.itemsize)
            console.print(
                f"product, {kind}: {_ms(taken)} ms; all rows in the nearest cache: {_ms(close)} "
                f"({statistics.median(close) / median:.0%}); {least / 1e6:.0f} MB, the least, at the "
                f"{rate / 1e9:.1f} GB/s of memory: {least / rate * 1e3:.1f} ({least / rate / median:.0%})"
            )


def near(matrix: SparseRows) -> SparseRows:
    """A matrix with as many entries in each row, all in the first columns."""
    return SparseRows(matrix.offsets, matrix.columns % NEAR_ROWS, matrix.values)


def _plan(run: Run) -> TablePlan:
    plan = plan_nodes(run, Manifest.read(run.stage("ingest")))
    assert plan is not None
    return plan


def evaluation(rounds: int, overrides: Sequence[str], console: Console) -> None:
    """Print how long lists of all users take."""
    run = compose_run(["experiment=graph/gowalla", *overrides])
    ingest.work(run)
    interactions = interactions_at(run, TRAIN, CPU)
    published = PublishedLightGCN(interactions, width=WIDTH, num_layers=NUM_LAYERS)
    users, items = (part.detach().clone() for part in published.propagated())
    ours = DotRecommender(users=users, items=items, fold_in=items)
    assert run.config.retrieval is not None
    at_once = run.config.retrieval.users_at_once
    some, few = torch.arange(1, 8 * at_once + 1), torch.arange(1, USERS_AT_ONCE + 1)
    seconds = take_turns(
        {
            "ours": lambda: rank(ours, some, interactions, k=K, users_at_once=at_once),
            PUBLISHED: lambda: published.lists(few, K),
            "published, propagated once": lambda: published.lists(few, K, propagate=False),
        },
        rounds,
    )
    measured = {"ours": len(some), PUBLISHED: len(few), "published, propagated once": len(few)}
    all_users = interactions.num_users - 1
    table = Table("", "us a user", f"{all_users:,} users, s")
    for label, number in measured.items():
        each = statistics.median(seconds[label]) / number
        table.add_row(label, f"{each * 1e6:,.0f}", f"{each * all_users:.1f}")
    console.print(table)


@dataclass(frozen=True, kw_only=True)
class Grown:
    """One graph's figures."""

    edges: int
    nodes: int
    build_seconds: float
    seconds: float  # of propagation, forward and backward
    peak_mib: float


def power_law(num_edges: int, generator: torch.Generator) -> Interactions:
    """Some 20 pairs a user; an item's rank is drawn as `u ** 3`, so that a tenth of them has half of the pairs."""
    num_users, num_items = num_edges // 20, num_edges // 40
    users = torch.randint(num_users, (num_edges,), generator=generator) + 1
    items = (torch.rand(num_edges, generator=generator, dtype=torch.float64) ** 3 * num_items).long() + 1
    return Interactions.of(users, items, num_users=num_users + 1, num_items=num_items + 1)


def grown(num_edges: int, rounds: int, threads: int) -> Grown:
    """Measure one size, in a process that has done nothing else."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    graph = power_law(num_edges, generator)
    started = time.perf_counter()
    adjacency = graph_of(graph)
    build = time.perf_counter() - started
    adjacency = adjacency.to(CPU, torch.bfloat16)
    x = torch.randn(adjacency.num_rows, WIDTH, generator=generator).requires_grad_()
    weights = torch.full((NUM_LAYERS + 1,), 1 / (NUM_LAYERS + 1))
    places = torch.randint(adjacency.num_rows, (6144,), generator=generator)

    def both_ways() -> Tensor:
        x.grad = None
        _, final = propagate_rows(x, weights, adjacency, places, torch.bfloat16)
        final.square().sum().backward()
        return final

    seconds = take_turns({"": both_ways}, rounds)[""]
    return Grown(
        edges=graph.num_pairs,
        nodes=adjacency.num_rows,
        build_seconds=build,
        seconds=statistics.median(seconds),
        peak_mib=peak_mib(),
    )


def growth(edges: Sequence[int], rounds: int, threads: int, console: Console) -> None:
    """Print a row a size."""
    table = Table("pairs", "nodes", "building, s", "forward and backward, s", "ns a pair", "peak MiB")
    for size in edges:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(grown, size, rounds, threads).result()
        each = found.seconds / found.edges * 1e9
        row = (f"{found.build_seconds:.1f}", f"{found.seconds:.2f}", f"{each:.0f}", f"{found.peak_mib:,.0f}")
        table.add_row(f"{found.edges:,}", f"{found.nodes:,}", *row)
    console.print(table)


def _ms(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} [{min(seconds) * 1e3:.1f}]"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="PART or KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--edges", type=int, nargs="+", default=[10**6, 10**7])
    options = parser.parse_intermixed_args()
    set_up_logging()
    torch.set_num_threads(options.threads)
    overrides = [word for word in options.words if "=" in word]
    parts = [word for word in options.words if "=" not in word] or ["training", "evaluation", "growth"]
    console = Console()
    if "training" in parts:
        training(options.rounds, overrides, console)
    if "evaluation" in parts:
        evaluation(options.rounds, overrides, console)
    if "growth" in parts:
        growth(options.edges, options.rounds, options.threads, console)


if __name__ == "__main__":
    main()
