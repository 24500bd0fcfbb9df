"""Rows per second of the planned collection on a GPU, beside raw FBGEMM and `torch.nn.EmbeddingBag`.

Everything that wants a GPU, unattended, on a machine that has one (about five minutes after installing):

    make install-cuda && .venv/bin/python -m pytest tests/gpu && .venv/bin/python tools/bench_gpu.py --output gpu.json

One step is forward, backward and update. The planned collection runs as training runs it (DistributedModelParallel,
fused row-wise Adagrad, one rank); raw FBGEMM is one `SplitTableBatchedEmbeddingBagsCodegen` over the same 26 full
tables with the same optimizer; `EmbeddingBag` is 26 modules with sparse gradients and SGD, the cheapest update it has.
Ids are uniformly random, one per row and feature, in device memory. Contestants take turns within every round; a turn
is some steps back to back between two CUDA events, after turns that do not count; the median turn is reported.

Share of memory bandwidth = bytes that a step must move at least / its time / copy bandwidth measured in the same run
(`b.copy_(a)`: twice the size of `a` per copy). With N look-ups of physical rows of D float32 values, U distinct rows
among them, B rows and W = width of all embeddings together, the bytes are

    4 N D  rows read        + 4 B W  embeddings written    + 4 B W  their gradient read
    8 U D  rows read again and written back                + 8 U s  optimizer state, s values a row (0 for SGD)
    16 N   int64 rows read, forward and backward

What an implementation moves on top (sorting, gradients spelt out, hashing) is its own loss. `--device cpu` is a smoke
test of this script with tiny tables; its figures mean nothing.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from recsys.train.config import DeviceConfig, Sharding
from recsys.train.session import process_group

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, it would not find its other half
from tools.gpu_contestants import NUM_FEATURES, Contestant, bytes_moved, contestants

NUM_BATCHES = 4
"""Batches that turns go through in a circle."""


@dataclass(frozen=True)
class Shape:
    """One setting: ids of each feature, width of each embedding, rows of a batch."""

    num_ids: int
    width: int
    batch_size: int


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    shape: Shape
    contestant: str
    milliseconds: float  # median of one step
    rows_per_second: float
    bytes_moved: int
    bandwidth_share: float
    memory_bytes: int  # of tables and optimizer states, as allocated; 0 on a CPU


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    rounds: int
    steps: int  # of a turn
    stop_at: float  # of time.monotonic(); rounds after it are left out


@contextmanager
def timed(device: torch.device, milliseconds: list[Callable[[], float]]) -> Iterator[None]:
    """Time what is inside on the device, without waiting for it; read the result after a synchronisation."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        end.record()
        milliseconds.append(lambda: float(start.elapsed_time(end)))
    else:
        started = time.perf_counter()
        yield
        taken = (time.perf_counter() - started) * 1e3
        milliseconds.append(lambda: taken)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device, num_bytes: int) -> float:
    """Bytes per second, read and written, of a plain copy."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    times: list[Callable[[], float]] = []
    for _ in range(12):
        with timed(device, times):
            target.copy_(source)
    synchronize(device)
    return 2 * source.numel() * 4 / (statistics.median(read() for read in times[2:]) / 1e3)


def step_times(entries: dict[str, Contestant], batches: list[Tensor], timing: Timing) -> dict[str, float]:
    """Median milliseconds of one step of each, after two rounds that do not count."""
    device = batches[0].device
    gradients = {name: torch.rand_like(entry.forward(batches[0])) for name, entry in entries.items()}
    times: dict[str, list[Callable[[], float]]] = {name: [] for name in entries}
    for number in range(timing.rounds + 2):
        if number > 2 and time.monotonic() > timing.stop_at:
            break
        for name, entry in entries.items():
            synchronize(device)  # the queue is empty at the start of every turn, whoever went before
            with timed(device, times[name]):
                for step in range(timing.steps):
                    entry.forward(batches[(number + step) % len(batches)]).backward(gradients[name])
                    entry.update()
    synchronize(device)
    return {name: statistics.median(read() for read in taken[2:]) / timing.steps for name, taken in times.items()}


def measure(shapes: list[Shape], run_on: DeviceConfig, timing: Timing, bandwidth: float) -> list[Measured]:
    """Measure all contestants on shapes of the same tables."""
    device, (first, *_) = torch.device(run_on.device), shapes
    entries = contestants(first.num_ids, first.width, run_on)
    generator = torch.Generator(device).manual_seed(0)
    lines = []
    for shape in shapes:
        size = (NUM_FEATURES, shape.batch_size)
        batches = [torch.randint(shape.num_ids, size, generator=generator, device=device) for _ in range(NUM_BATCHES)]
        for name, milliseconds in step_times(entries, batches, timing).items():
            moved, seconds = bytes_moved(entries[name], batches[0]), milliseconds / 1e3
            share = moved / seconds / bandwidth
            rate = shape.batch_size / seconds
            lines.append(Measured(shape, name, milliseconds, rate, moved, share, entries[name].memory_bytes))
            print(described(lines[-1]), flush=True)
    return lines


HEADER = (
    f"{'ids x width':>14} {'batch':>6}  {'contestant':<26}{'ms/step':>9}{'M rows/s':>10}{'MB moved':>10}"
    f"{'of copy':>9}{'GiB held':>10}"
)


def described(line: Measured) -> str:
    """One line of text."""
    tables = f"{line.shape.num_ids:,}x{line.shape.width}"
    return (
        f"{tables:>14} {line.shape.batch_size:>6}  {line.contestant:<26}{line.milliseconds:>9.3f}"
        f"{line.rows_per_second / 1e6:>10.3f}{line.bytes_moved / 1e6:>10.1f}{line.bandwidth_share:>9.1%}"
        f"{line.memory_bytes / 2**30:>10.2f}"
    )


def tables(device: torch.device) -> list[list[Shape]]:
    """Shapes, grouped by tables: only one group is in memory at a time (the larger one takes about 115 GiB)."""
    if device.type == "cpu":
        return [[Shape(1000, 16, 64)], [Shape(500, 64, 32)]]
    sizes = (4096, 16384, 65536)
    return [[Shape(n, width, size) for size in sizes] for n, width in ((1_000_000, 16), (5_000_000, 64))]


def environment(device: torch.device) -> dict[str, str]:
    """What was measured on."""
    fbgemm = "fbgemm-gpu" if device.type == "cuda" else "fbgemm-gpu-cpu"
    versions = {name: version(name) for name in ("torch", "torchrec", fbgemm)}
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", **versions}


def report(arguments: argparse.Namespace) -> None:
    """Measure, print, and write the JSON file."""
    started = time.monotonic()
    run_on = DeviceConfig(device=arguments.device, sharding=Sharding.TABLE_WISE)
    with process_group(run_on) as device:
        on_gpu = device.type == "cuda"
        found = environment(device)
        bandwidth = copy_bandwidth(device, 2**31 if on_gpu else 2**24)
        print(" · ".join(f"{name} {value}" for name, value in found.items()))
        print(f"copy bandwidth {bandwidth / 1e9:,.0f} GB/s, read and written\n{HEADER}", flush=True)
        groups, lines = tables(device), list[Measured]()
        for number, shapes in enumerate(groups, start=1):
            # Each group may use its share of the time; rounds that do not fit are left out.
            stop_at = started + arguments.minutes * 60 * number / len(groups)
            lines += measure(shapes, run_on, Timing(arguments.rounds, arguments.steps, stop_at), bandwidth)
            gc.collect()
            torch.cuda.empty_cache()
    if arguments.output is not None:
        measured = [asdict(line) for line in lines]
        content = {"environment": found, "copy_bytes_per_second": bandwidth, "measured": measured}
        arguments.output.write_text(json.dumps(content, indent=1))


def main() -> int:
    """Return the exit code: 2 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn, back to back")
    parser.add_argument("--minutes", type=float, default=4.0, help="leave out rounds that would end later")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        print(
            f"bench_gpu: torch {torch.__version__} ({build}) sees no CUDA device, so there is nothing to measure. "
            "Run it on a machine with a GPU after `make install-cuda`; --device cpu only tries this script.",
            file=sys.stderr,
        )
        return 2
    report(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
