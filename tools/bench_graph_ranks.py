"""What each rank of a retrieval training holds, needs and sends.

    python -m tools.bench_graph_ranks [experiment=graph/gowalla_bpr KEY=VALUE …] [train.run_on.num_processes=2]

Prints a row a rank: bytes of its part of the tables, of their gradients and of the optimizer's state, of one layer of
all nodes (its columns alone), its largest resident memory and that before the model was built, milliseconds a step
(the median of some), and what it hands to exchanges in one step, by kind, with the part that it keeps itself (1 / W of
all to all). Ranks share this machine's cores and memory, so that a step of two says little about two machines.
"""

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.profiler import ProfilerActivity, profile

from pipelines import ingest
from pipelines.config import Run
from pipelines.entry import launched_by_torchrun, relaunch, stage_main
from pipelines.retrieval_model import plan_nodes
from pipelines.retrieval_train import prepared
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.memory import peak_mib
from recsys.retrieval.encoder import Encoded
from recsys.retrieval.task import RetrievalTask
from recsys.train.session import process_group
from recsys.train.trainer import Trainer
from tools.stepping import endless

STEPS = 5
EXCHANGES = {"gloo:all_to_all": "all to all", "gloo:all_gather": "gather", "gloo:all_reduce": "sum"}
ITEM_BYTES = {"float": 4, "double": 8, "c10::BFloat16": 2, "long int": 8, "int": 4, "long": 8}
"""Bytes of an element by the profiler's names."""


@dataclass(frozen=True, kw_only=True)
class RankFigures:
    """One rank's figures: bytes, but for memory (MiB) and the step (seconds)."""

    tables: int
    gradients: int
    optimizer: int
    layer: int
    start_mib: float
    peak_mib: float
    step: float
    sent: dict[str, int]


def work(run: Run) -> None:
    """Measure a run on as many ranks as it asks for."""
    if not launched_by_torchrun():
        ingest.work(run)
        if run.config.train.run_on.num_processes > 1:
            relaunch("tools.bench_graph_ranks", run)
            return
    with process_group(run.config.train.run_on):
        found: list[RankFigures | None] = [None] * dist.get_world_size()
        dist.all_gather_object(found, measured(run))
        if dist.get_rank() == 0:
            tell([figures for figures in found if figures is not None], Console())


def measured(run: Run) -> RankFigures:
    """This rank's figures; needs a process group."""
    start = peak_mib()
    plan = plan_nodes(run, Manifest.read(run.stage("ingest")))
    if plan is None:
        raise ConfigError("retrieval/model has no embeddings to train. Choose lightgcn, mf or another that is trained.")
    with tempfile.TemporaryDirectory() as folder:
        trainer, source = prepared(run, plan, Path(folder) / "run", None, 1)
        trainer.session.model.train()
        batches, seconds = endless(source.epoch), []
        for batch in islice(batches, STEPS):
            started = time.perf_counter()
            trainer._step(batch, batch.labels.numel())
            seconds.append(time.perf_counter() - started)
        peak, one = peak_mib(), next(batches)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
            trainer._step(one, one.labels.numel())
        trace.export_chrome_trace(f"{folder}/trace.json")
        sent = sent_in(json.loads(Path(folder, "trace.json").read_text())["traceEvents"])
    session = trainer.session
    return RankFigures(
        tables=sum(held(weight) for weight, _ in session._stored.values()),
        gradients=sum(held(p.grad) for p in session.embedding_parameters if p.grad is not None),
        optimizer=sum(held(state) for state in _leaves(session.optimizer.state_dict()["state"])),
        layer=layer_bytes(trainer),
        start_mib=start,
        peak_mib=peak,
        step=statistics.median(seconds),
        sent=sent,
    )


@torch.no_grad()
def layer_bytes(trainer: Trainer) -> int:
    """This rank's columns of all nodes, float32."""
    task = trainer.task
    assert isinstance(task, RetrievalTask)
    encoded: Encoded = trainer.session.model(task._nodes)
    return held(encoded.initial)


def held(tensor: Tensor | ShardedTensor) -> int:
    """Bytes of a tensor that lie on this rank."""
    if isinstance(tensor, ShardedTensor):
        return sum(held(shard.tensor) for shard in tensor.local_shards())
    return tensor.numel() * tensor.element_size()


def _leaves(state: Any) -> Iterator[Tensor | ShardedTensor]:  # noqa: ANN401 - torch's own
    if isinstance(state, dict):
        for part in state.values():
            yield from _leaves(part)
    elif isinstance(state, Tensor | ShardedTensor):
        yield state


def sent_in(events: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes that a rank gives to each kind of exchange, of a trace's events; empty on one rank."""
    found = Counter[str]()
    for event in events:
        if event.get("name") in EXCHANGES and dist.get_world_size() > 1:
            shape, kind = event["args"]["Input Dims"][0], event["args"]["Input type"][0]
            found[EXCHANGES[event["name"]]] += torch.Size(shape).numel() * ITEM_BYTES[kind]
    return dict(found)


def tell(found: list[RankFigures], console: Console) -> None:
    """Print a row a rank."""
    bytes_of = ("tables", "gradients", "optimizer", "layer")
    kinds = sorted({kind for figures in found for kind in figures.sent})
    heads = [*(f"{name}, MB" for name in bytes_of), "MiB before", "MiB", "ms a step", *(f"{k}, MB" for k in kinds)]
    table = Table("rank", *heads)
    for rank, figures in enumerate(found):
        values = asdict(figures)
        table.add_row(
            f"{rank} of {len(found)}",
            *(f"{values[name] / 1e6:.1f}" for name in bytes_of),
            f"{figures.start_mib:,.0f}",
            f"{figures.peak_mib:,.0f}",
            f"{figures.step * 1e3:.0f}",
            *(f"{figures.sent.get(kind, 0) / 1e6:.2f}" for kind in kinds),
        )
    console.print(table)


main = stage_main(work)

if __name__ == "__main__":
    main()
