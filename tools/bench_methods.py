"""Every embedding method at several budgets on one data set: bytes and quality as one table.

    python -m tools.bench_methods --dataset criteo --seeds 1,2,3 --out docs/methods_criteo

Each row is `pipelines.run experiment=bench/<dataset>_dcnv2` with another embedding, in a process of its own. A finished
run is not repeated, so an interrupted table goes on where it stopped. Writes OUT.json and OUT.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

METHODS = ("full", "hash", "quotient_remainder", "unified")
RATIOS = (1, 5, 20, 100)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run."""

    method: str
    ratio: int
    seed: int
    float_bytes: int
    int8_bytes: int
    validation_auc: float
    test_auc: float
    test_log_loss: float
    int8_auc_delta: float


def run(dataset: str, method: str, ratio: int, seed: int, runs: Path) -> Result | str:
    """Train, evaluate and export; the reason in words where the budget cannot be met."""
    name = f"methods/{dataset}/{method}_{ratio}x_seed{seed}"
    command = [
        *(sys.executable, "-m", "pipelines.run", f"experiment=bench/{dataset}_dcnv2", f"embedding={method}"),
        *(f"embedding.compression_ratio={ratio}", f"seed={seed}", f"name={name}", f"runs={runs}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        return errors[-1] if errors else done.stderr[-500:]
    folder = runs / name
    train, test = (json.loads((folder / stage / "metrics.json").read_text()) for stage in ("train", "evaluate"))
    models = json.loads((folder / "export" / "manifest.json").read_text())["models"]
    parity = json.loads((folder / "export" / "parity.json").read_text())["models"]
    return Result(
        method=method,
        ratio=ratio,
        seed=seed,
        float_bytes=models["float32"]["plan_bytes"],
        int8_bytes=models["int8"]["plan_bytes"],
        validation_auc=train["validation.auc"],
        test_auc=test["auc"],
        test_log_loss=test["log_loss"],
        int8_auc_delta=next(model["auc_delta"] for model in parity if model["row_type"] == "int8"),
    )


def table(results: Sequence[Result], refusals: Sequence[str]) -> str:
    """Markdown: one row per method and budget, mean and spread over seeds."""
    lines = [
        "| embedding | budget | bytes float32 | bytes int8 | test AUC (mean ± sd) | log loss | int8 ΔAUC (largest) |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, ratio in dict.fromkeys((result.method, result.ratio) for result in results):
        group = [result for result in results if (result.method, result.ratio) == (method, ratio)]
        aucs = [result.test_auc for result in group]
        spread = f" ± {statistics.stdev(aucs):.4f}" if len(aucs) > 1 else ""
        delta = max((result.int8_auc_delta for result in group), key=abs)
        lines.append(
            f"| {method} | {ratio}× | {group[0].float_bytes:,} | {group[0].int8_bytes:,} | "
            f"{statistics.mean(aucs):.4f}{spread} | {statistics.mean(r.test_log_loss for r in group):.4f} | "
            f"{delta:+.5f} |"
        )
    return "\n".join([*lines, "", *(f"- {refusal}" for refusal in refusals)]) + "\n"


def main() -> None:
    """Run what is missing, then write the table; it is written after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("criteo", "frappe"), required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cells = [(m, r) for m in METHODS for r in RATIOS if m != "full" or r == 1]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results: list[Result] = []
    refusals: list[str] = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for method, ratio in cells:
            outcome = run(options.dataset, method, ratio, seed, options.runs)
            print(outcome, flush=True)
            if isinstance(outcome, Result):
                results.append(outcome)
            elif seed == seeds[0]:
                refusals.append(f"{method} at {ratio}×: {outcome}")
            in_order = sorted(results, key=lambda result: cells.index((result.method, result.ratio)))
            options.out.with_suffix(".json").write_text(json.dumps([asdict(r) for r in in_order], indent=1))
            options.out.with_suffix(".md").write_text(table(in_order, refusals))
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
