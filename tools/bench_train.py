"""Training rows per second and where a step's time goes, beside the same model with Adam on whole tables.

    python -m tools.bench_train [CASE …] [--rounds 9] [--threads 2] [--precision bfloat16] [--beside …] [--out FILE]

A case is `MODEL@DATA` (`dcnv2@criteo_sample`, `experiment=sequence/planted_din`: one batch of a data set, which is
ingested if it is not) or `MODEL@IDS` (`dcnv2@5000000`: so many rows of 26 tables, 16 wide, and 13 numbers; ids drawn so
that few are frequent). What takes turns within every round, medians of all rounds:

* step: the trainer's own, with fused row-wise Adagrad; Adam: the same model with dense gradients and Adam on whole
  tables (float32);
* FuxiCTR (`--beside fuxictr`): its own step, with its own protocol (dense Adam in float32, an embedding for each
  number, regularised tables, clipped gradients), in a process of its own, which is made below `.bench` when absent;
* loader: reading the files of an epoch and making its batches in this thread, by the batch;
* embedding: a step of a model that only adds its embeddings up (remap, look-up, backward pass, fused update);
* remap: ids to rows alone;
* head: forward and backward pass of everything behind the embeddings; dense update: its optimizer.

What a step takes beyond embedding, head and update is TorchRec's and the trainer's own. `peak`: multiply-adds of the
head (forward and backward, counted by torch) per second as a share of what a square matrix product reaches in the same
round and precision. Run it alone on the machine.
"""

import copy
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from pipelines import ingest
from pipelines.config import Run
from pipelines.entry import set_up_logging
from pipelines.model import join
from pipelines.pareto_cells import compose_run
from recsys.core.batch import Batch
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.lookups import Lookups
from recsys.train.config import OptimizerConfig, Precision, TableOptimizer, TrainConfig
from recsys.train.session import process_group
from tools.all_methods import ranked
from tools.case_options import config_of, parser_of, tell
from tools.peer_step import has_peer, peer_step
from tools.stepping import SumHead, take_turns, trainer_step

CASES = (
    "lr@criteo_sample", "lr@synthetic", "lr@frappe", "dcnv2@criteo_sample", "dlrm@criteo_sample",
    "autoint@criteo_sample", "experiment=sequence/planted_din", "dcnv2@1000000", "dcnv2@5000000",
)  # fmt: skip


class Beside(Enum):
    """What a step is compared with."""

    ADAM = "adam"
    FUXICTR = "fuxictr"


NUM_FEATURES, NUM_NUMERIC, WIDTH = 26, 13, 16
SKEW = 3.0
"""A generated id is num_ids * u ** SKEW, u uniform."""
SQUARE = 2048


@dataclass(frozen=True)
class Case:
    """A model, its features, and rows."""

    label: str
    run: Run
    specs: list[FeatureSpec]
    batch: Batch
    loader: ParquetLoader | None  # which has read nothing yet; none where rows are generated

    @property
    def plan(self) -> TablePlan:
        """Of the model's embeddings."""
        return self.run.config.embedding.plan(self.run.config.model.features(self.specs))

    def model(self, embeddings: PlannedEmbeddingBagCollection) -> nn.Module:
        """The model over these embeddings."""
        head = self.run.config.model.build(embeddings.plan.outputs, self.batch.dense.shape[1])
        return join(embeddings, head)


def case(label: str, batch_size: int) -> Case:
    """The case of a command line's word."""
    model, _, source = label.partition("@")
    if source.isdigit():
        run = compose_run([f"model={model}", "name=bench_train"])
        return Case(label, run, *generated(int(source), batch_size), None)
    run = compose_run([label] if not source else [f"model={model}", f"dataset={source}"])
    ingest.work(run)
    folder = run.stage("ingest")
    loader = ParquetLoader(folder, "train", LoaderOptions(batch_size=batch_size, prefetch_batches=0))
    first = next(copy.copy(loader).epoch(0))
    return Case(label, run, Manifest.read(folder).feature_specs(), first, loader)


def generated(num_ids: int, batch_size: int) -> tuple[list[FeatureSpec], Batch]:
    """Features that have so many ids together, and one batch."""
    generator = torch.Generator().manual_seed(0)
    size = num_ids // NUM_FEATURES
    names = [f"C{number}" for number in range(NUM_FEATURES)]
    drawn = torch.rand(NUM_FEATURES * batch_size, generator=generator, dtype=torch.float64)
    sparse = KeyedJaggedTensor(
        keys=names,
        values=(drawn**SKEW * size).long(),
        lengths=torch.ones(NUM_FEATURES * batch_size, dtype=torch.int64),
    )
    dense = torch.randn(batch_size, NUM_NUMERIC, generator=generator)
    labels = torch.randint(2, (batch_size,), generator=generator).float()
    return [ranked(name, size, WIDTH) for name in names], Batch(dense, sparse, labels)


def parts(found: Case, config: TrainConfig, device: torch.device) -> dict[str, Callable[[], object]]:
    """What takes turns, by the table's headings, but for Adam on whole tables."""
    step = trainer_step(found.model, found.plan, config, device)
    adding = trainer_step(lambda embeddings: join(embeddings, SumHead()), found.plan, config, device)
    forward_backward, update, _ = head_parts(found, config)
    runs: dict[str, Callable[[], object]] = {
        "step": lambda: step(found.batch),
        "embedding": lambda: adding(found.batch),
        "remap": remapping(found),
        "head": forward_backward,
        "dense update": update,
    }
    if found.loader is not None:
        runs["loader"] = partial(read_epoch, found.loader)
    return runs


def read_epoch(loader: ParquetLoader) -> None:
    """Make every batch of an epoch, from the files on."""
    for _ in copy.copy(loader).epoch(0):  # a copy: it keeps what it has read
        pass


def remapping(found: Case) -> Callable[[], None]:
    """Ids to rows of all features."""
    collection = PlannedEmbeddingBagCollection(found.plan, torch.device("meta"))
    lookups = [part for part in collection.modules() if isinstance(part, Lookups) and part.keys]
    by_source = found.batch.sparse.to_dict()

    @torch.no_grad()
    def run() -> None:
        for part in lookups:
            part.physical(part.inputs(by_source), by_source)

    return run


def head_parts(found: Case, config: TrainConfig) -> tuple[Callable[[], object], Callable[[], object], int]:
    """(forward and backward pass of the head on fixed embeddings, its optimizer's step, multiply-adds of the first)."""
    torch.manual_seed(0)
    model = found.model(PlannedEmbeddingBagCollection(found.plan))
    inputs: list[tuple[object, ...]] = []
    handle = model.head.register_forward_pre_hook(lambda _, given: inputs.append(given))  # type: ignore[union-attr]
    model(found.batch.dense, found.batch.sparse)
    handle.remove()
    given = [_leaf(value) for value in inputs[0]]
    head = model.head
    assert isinstance(head, nn.Module)
    head.train()
    optimizer = torch.optim.Adam(head.parameters(), lr=config.optimizer.dense_learning_rate)
    bfloat16 = config.run_on.precision is Precision.BFLOAT16

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = head(*given)
        logits.float().sum().backward()

    with FlopCounterMode(display=False) as counter:
        run()
    return run, optimizer.step, counter.get_total_flops() // 2


def _leaf(value: object) -> object:
    """The same numbers with a gradient of their own: those of tables."""
    if isinstance(value, list):
        return [_leaf(each) for each in value]
    if isinstance(value, Tensor) and value.requires_grad:
        return value.detach().requires_grad_()
    return value


def squares(precision: Precision) -> Callable[[], object]:
    """A square matrix product."""
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    matrix = torch.randn(SQUARE, SQUARE).to(dtype)
    return lambda: torch.mm(matrix, matrix)


def whole_tables(found: Case, config: TrainConfig, device: torch.device) -> Callable[[], object]:
    """A step with dense gradients and Adam on whole tables, in float32."""
    config = replace(
        config,
        optimizer=OptimizerConfig(table=TableOptimizer.ADAM, table_learning_rate=1e-3),
        run_on=replace(config.run_on, precision=Precision.FLOAT32),
    )
    return partial(trainer_step(found.model, found.plan, config, device), found.batch)


@contextmanager
def contestants(
    found: Case, config: TrainConfig, device: torch.device, beside: Collection[Beside]
) -> Iterator[dict[str, Callable[[], object]]]:
    """Everything that takes turns."""
    runs = {**parts(found, config, device), "square": squares(config.run_on.precision)}
    if Beside.ADAM in beside:
        runs["Adam"] = whole_tables(found, config, device)
    if Beside.FUXICTR not in beside or not has_peer(found.run.values["model"], found.specs):
        yield runs
        return
    with peer_step(found.run.values, found.specs, found.batch, torch.get_num_threads()) as step:
        yield {**runs, "FuxiCTR": step}


def measured(
    found: Case, config: TrainConfig, device: torch.device, *, rounds: int, beside: Collection[Beside]
) -> dict[str, float]:
    """Figures of a case, by the table's headings; times in milliseconds."""
    with contestants(found, config, device, beside) as runs:
        seconds = {name: statistics.median(taken) for name, taken in take_turns(runs, rounds).items()}
    square = seconds.pop("square")
    if found.loader is not None:
        seconds["loader"] /= found.loader.num_batches
    figures = {name: 1e3 * taken for name, taken in seconds.items()}
    figures["rows/s"] = found.batch.labels.numel() / seconds["step"]
    figures |= {f"{name} / step": seconds[name] / seconds["step"] for name in ("Adam", "FuxiCTR") if name in seconds}
    multiply_adds = head_parts(found, config)[2]
    figures["peak"] = multiply_adds / seconds["head"] / (SQUARE**3 / square)
    return figures


HEADINGS = (
    "rows/s", "step", "Adam", "Adam / step", "FuxiCTR", "FuxiCTR / step", "loader", "embedding", "remap", "head",
    "dense update", "peak",
)  # fmt: skip


def table_of(results: dict[str, dict[str, float]]) -> Table:
    """A line a case."""
    table = Table("case (ms)", *HEADINGS)
    for label, figures in results.items():
        table.add_row(label, *(_cell(name, figures.get(name, float("nan"))) for name in HEADINGS))
    return table


def _cell(name: str, value: float) -> str:
    if value != value:
        return "–"
    form = {"rows/s": ",.0f", "Adam / step": ".1f", "FuxiCTR / step": ".1f", "peak": ".0%"}.get(name, ".1f")
    return f"{value:{form}}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = parser_of(__doc__, CASES)
    parser.add_argument("--beside", type=Beside, nargs="*", default=[Beside.ADAM], help="each needs 4 x tables' memory")
    options = parser.parse_args(arguments)
    set_up_logging()
    config = config_of(options)
    results = {}
    with process_group(config.run_on) as device:
        for label in options.cases:
            found = case(label, options.batch_size)
            results[label] = measured(found, config, device, rounds=options.rounds, beside=options.beside)
    tell(table_of(results), results, options)


if __name__ == "__main__":
    main()
