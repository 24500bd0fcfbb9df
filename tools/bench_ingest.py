"""How fast rows become a dataset folder, and in how much memory: Criteo rows repeated with perturbed ids.

    python -m tools.bench_ingest --rows 1000000 5000000 20000000
    python -m tools.bench_ingest --rows 1000000 --peer

For each size: rows a second, CPU seconds and peak memory of a process that ingests a TSV file of so many rows, and of
one that only reads and decodes the same file with polars, block by block: the limit of any ingest that starts from this
file. With `--peer` also of FuxiCTR's `build_dataset` on the same rows as CSV, four fifths of them for training. On a
machine that others use, compare CPU seconds. Files of 20 M rows take 5 GB, and their encoded rows as much again.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import polars as pl
import polars_hash

from recsys.core.errors import StageError
from recsys.core.memory import peak_mib
from recsys.data.blocks import BLOCK_BYTES
from recsys.data.criteo import CATEGORICAL, NUMERIC, CriteoDataset
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.text import TextReader
from tools.fuxictr_setup import ROOT, peer_python
from tools.process_tree import watched

COLUMNS = ("label", *NUMERIC, *CATEGORICAL)
PERTURBED = 0.3
"""Share of the ids of each copy that no other copy has."""


def copies(sample: pl.DataFrame, num_rows: int) -> Iterator[pl.DataFrame]:
    """So many rows: the sample, then copies of it, of which every id is another one with probability `PERTURBED`."""
    for copy in range(-(-num_rows // sample.height)):
        frame = sample.head(num_rows - copy * sample.height)
        if copy:
            place = pl.int_range(frame.height, dtype=pl.UInt64)
            changed = []
            for number, name in enumerate(CATEGORICAL):
                key = pl.concat_str(pl.col(name), place.cast(pl.String), pl.lit(f"/{copy}/{number}"))
                frame = frame.with_columns(key.alias("__key__"))
                hashed = frame.select(polars_hash.col("__key__").nchash.xxhash64()).to_series()
                other = pl.concat_str(pl.col(name), pl.lit(f"{copy:x}"))
                is_other = pl.Series(hashed % 1000 < 1000 * PERTURBED)
                changed.append(pl.when(is_other).then(other).otherwise(pl.col(name)).alias(name))
            frame = frame.with_columns(changed).drop("__key__")
        yield frame


def generate(sample: Path, target: Path, num_rows: int) -> None:
    """Write a TSV file of so many rows, unless it is there."""
    if target.is_file():
        return
    frame = pl.concat(TextReader(separator="\t", columns=COLUMNS, quoted=False).frames(sample, 1 << 20))
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        for part in copies(frame, num_rows):
            part.write_csv(file, separator="\t", include_header=False, quote_style="never")
    partial.rename(target)


def measured(work: Callable[[Path, Path], None], source: Path, folder: Path) -> dict[str, float]:
    """Seconds, and peak MiB of a fresh process that does `work`, beyond those of one that has only imported it."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_timed, args=(work, source, folder, sender))
    process.start()
    sender.close()
    found: dict[str, float] = receiver.recv()
    process.join()
    return found


def _timed(work: Callable[[Path, Path], None], source: Path, folder: Path, sender: Connection) -> None:
    before = peak_mib()
    started, used = time.monotonic(), time.process_time()
    work(source, folder)
    seconds, used = time.monotonic() - started, time.process_time() - used
    sender.send({"seconds": seconds, "cpu_seconds": used, "peak_mib": peak_mib(), "imported_mib": before})


def ingested(source: Path, folder: Path) -> None:
    """Ingest the file; the split by hash keeps nothing of a row."""
    split = SplitConfig(method=SplitMethod.HASH)
    ingest(CriteoDataset(path=str(source), split=split), folder, options=IngestOptions())


def decoded(source: Path, _folder: Path) -> None:
    """Read the file's blocks into frames of text, and do nothing with them."""
    for _ in TextReader(separator="\t", columns=COLUMNS, quoted=False).frames(source, BLOCK_BYTES):
        pass


def of_peer(source: Path, num_rows: int, folder: Path) -> dict[str, float]:
    """What `tools/fuxictr_ingest.py` takes for these rows, with the processes that it starts."""
    split = _split_of(source, num_rows, folder / f"{num_rows}-split")
    command = [str(peer_python()), "-m", "tools.fuxictr_ingest"]
    work = folder / f"{num_rows}-peer-{int(time.time())}"
    command += [str(split.resolve()), str(work.resolve())]
    log = folder / "peer.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
        watched(process.pid) as usage,
    ):
        _awaited("begin", process, log)
        usage.look(process.pid)
        before = usage.cpu_seconds
        seconds = float(_awaited("seconds", process, log))
        usage.look(process.pid)
        process.communicate("\n")
    return {"seconds": seconds, "cpu_seconds": usage.cpu_seconds - before, "peak_mib": usage.peak_mib}


def _split_of(source: Path, num_rows: int, split: Path) -> Path:
    """The folder of the rows as CSV, four fifths of them for training."""
    split.mkdir(exist_ok=True)
    ends = (num_rows * 8 // 10, num_rows * 9 // 10, num_rows)
    starts, names = (0, *ends[:2]), ("train", "valid", "test")
    with ExitStack() as opened:
        files = [opened.enter_context((split / f"{name}.csv").open("wb")) for name in names]
        at = 0
        for frame in TextReader(separator="\t", columns=COLUMNS, quoted=False).frames(source, 1 << 16):
            for file, start, end in zip(files, starts, ends, strict=True):
                part = frame.slice(max(start - at, 0), max(min(end, at + frame.height) - max(start, at), 0))
                part.write_csv(file, include_header=file.tell() == 0)
            at += frame.height
    return split


def _awaited(word: str, process: subprocess.Popen[str], log: Path) -> str:
    """What follows `word` on the next line of FuxiCTR's process that begins with it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word)
    raise StageError(f"FuxiCTR's process ended before its end; see {log}.")


def main() -> None:
    """Generate, measure, print a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("RECSYS_DATA", "../shared/data"))
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--sample", type=Path, default=data / "criteo-sample" / "random137k.tsv.zst")
    parser.add_argument("--peer", action="store_true", help="FuxiCTR beside")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_ingest"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for num_rows in arguments.rows:
        source = arguments.folder / f"{num_rows}.tsv"
        generate(arguments.sample, source, num_rows)
        limit = measured(decoded, source, arguments.folder)
        ours = measured(ingested, source, arguments.folder / f"{num_rows}-{int(time.time())}")
        figures = {
            "rows": num_rows,
            "bytes": source.stat().st_size,
            "rows_per_second": round(num_rows / ours["seconds"]),
            "decoding_rows_per_second": round(num_rows / limit["seconds"]),
            "cpu_seconds": round(ours["cpu_seconds"], 1),
            "decoding_cpu_seconds": round(limit["cpu_seconds"], 1),
            "times_the_limit": round(ours["seconds"] / limit["seconds"], 2),
            "peak_mib": round(ours["peak_mib"]),
            "imported_mib": round(ours["imported_mib"]),
        }
        if arguments.peer:
            peer = of_peer(source, num_rows, arguments.folder)
            figures |= {f"peer_{name}": round(value, 1) for name, value in peer.items()}
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
