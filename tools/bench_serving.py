"""Latency of a bundle's models, as a server with torch alone would see it.

    python tools/bench_serving.py BUNDLE_FOLDER [--rows 1 512] [--repeats 300] [--threads 1]

One line of JSON per model and number of rows: median and 99th percentile in milliseconds, rows per second. Requests are
the bundle's golden rows, repeated where more are needed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

WARM_UP_CALLS = 20
SUFFIX = "__lengths"  # the bundle's mark of a multi-valued input


def request(features: dict[str, Tensor], num_rows: int) -> dict[str, Tensor]:
    """The first `num_rows` golden rows, from the start again when there are fewer."""
    multi_valued = [name[: -len(SUFFIX)] for name in features if name.endswith(SUFFIX)]
    counted = next(tensor for name, tensor in features.items() if name not in multi_valued)
    times = -(-num_rows // counted.numel())
    repeated = {name: tensor.repeat(times) for name, tensor in features.items()}
    part = {name: tensor[:num_rows].clone() for name, tensor in repeated.items() if name not in multi_valued}
    for name in multi_valued:
        part[name] = repeated[name][: int(part[name + SUFFIX].sum())].clone()
    return part


def measure(model: torch.jit.ScriptModule, features: dict[str, Tensor], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls, sorted."""
    seconds = []
    with torch.inference_mode():
        for call in range(WARM_UP_CALLS + repeats):
            start = time.perf_counter()
            model(features)
            if call >= WARM_UP_CALLS:
                seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def report(folder: Path, rows: Sequence[int], repeats: int) -> None:
    """Print one line per model and number of rows."""
    golden = torch.load(folder / "golden.pt", weights_only=True)
    models = json.loads((folder / "manifest.json").read_text())["models"]
    for row_type, known in models.items():
        model = torch.jit.load(folder / known["file"], map_location="cpu")
        for num_rows in rows:
            seconds = measure(model, request(golden["features"], num_rows), repeats)
            median = seconds[len(seconds) // 2]
            line = {
                "model": row_type,
                "file_bytes": known["file_bytes"],
                "rows": num_rows,
                "median_ms": round(median * 1e3, 3),
                "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1e3, 3),
                "rows_per_second": round(num_rows / median),
            }
            print(json.dumps(line), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 512])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated.*")
    report(arguments.folder, arguments.rows, arguments.repeats)


if __name__ == "__main__":
    main()
