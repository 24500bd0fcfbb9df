"""What finished cells left in their folders, and how fast their exported files answer."""

import json
import shutil
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipelines.pareto_cells import Job
from recsys.evaluate.pareto import Result
from recsys.export.border import slice_rows
from recsys.export.bundle import GOLDEN_TENSORS_NAME
from recsys.export.manifest import BundleManifest
from recsys.export.script import load_scripted

SERVED = "float32"
"""Which model of the bundle: the one with rows as the method serves them."""

REQUEST_ROWS, WARM_UP_CALLS, TIMED_CALLS = 256, 10, 50


@dataclass(frozen=True)
class CellFolders:
    """Where one cell's results are."""

    runs: Path
    job: Job

    def stage(self, name: str) -> Path:
        """Folder of a stage; of the training, that of the run whose training the cell uses."""
        run = self.job.trained_by if name == "train" and self.job.trained_by else self.job.name
        return self.runs / run / name

    @property
    def log(self) -> Path:
        """File of all that the cell printed."""
        return self.runs / self.job.name / "log.txt"

    def forget_resumption(self) -> None:
        """Delete the checkpoint that only an interrupted training needs: a sweep has hundreds of finished ones."""
        for path in (self.runs / self.job.name / "train" / "checkpoints").glob("last*"):
            shutil.rmtree(path)

    def metrics(self, stage: str) -> dict[str, Any]:
        """`metrics.json` of a stage."""
        found: dict[str, Any] = json.loads((self.stage(stage) / "metrics.json").read_text())
        return found


def validation_auc(folders: CellFolders) -> float:
    """Validation AUC of what is served."""
    return float(folders.metrics("validate" if folders.job.budget.frozen else "train")["validation.auc"])


def read_result(folders: CellFolders) -> Result:
    """The result of a cell whose stages are done."""
    trained, tested = folders.metrics("train"), folders.metrics("evaluate")
    model = BundleManifest.read(folders.stage("export")).models[SERVED]
    return Result(
        cell=folders.job.cell,
        plan_bytes=model.plan_bytes,
        file_bytes=model.file_bytes,
        other_bytes=model.head_bytes + model.encoder_bytes,
        peak_rss_bytes=int(trained["train.peak_rss_mib"] * 2**20),
        validation_auc=validation_auc(folders),
        test_auc=tested["auc"],
        test_log_loss=tested["log_loss"],
        rows_per_second=trained["train.rows_per_second"],
    )


def with_latency(result: Result, bundle: Path) -> Result:
    """The result with what `latency_ms` measures."""
    return replace(result, latency_ms=latency_ms(bundle))


def latency_ms(bundle: Path) -> float:
    """Median milliseconds of one request to the exported file, in this process, on one thread."""
    golden = torch.load(bundle / GOLDEN_TENSORS_NAME, weights_only=True)
    manifest = BundleManifest.read(bundle)
    rows = min(REQUEST_ROWS, golden["labels"].numel())
    request = slice_rows(golden["features"], manifest.inputs, start=0, stop=rows)
    model = load_scripted(bundle / manifest.models[SERVED].file)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    try:
        with torch.inference_mode():
            for _ in range(WARM_UP_CALLS + TIMED_CALLS):
                started = time.perf_counter()
                model(request)
                seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return round(statistics.median(seconds[WARM_UP_CALLS:]) * 1e3, 4)
