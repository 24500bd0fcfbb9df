"""A plan's tables cut out of a trained supernet: a run that was trained by slicing, ready to evaluate and to export."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.config import Run, RunConfig
from pipelines.model import CHECKPOINTS, PlannedModel, build_model, task_of
from pipelines.search_report import plan_name, read_choice, read_frontier
from pipelines.search_training import LAST, SUPERNET
from pipelines.stage import StageKey, fingerprint, stage
from pipelines.train import WHOLE_CHECKPOINT, loaders, trained_from
from recsys.core.jsonable import build_config
from recsys.core.manifest import Manifest
from recsys.core.memory import peak_mib
from recsys.data.fingerprint import file_fingerprint
from recsys.embeddings.planned import PlanFileConfig
from recsys.search.choice import Choice, Space, with_rows
from recsys.train import checkpoint
from recsys.train.score import Replica
from recsys.train.tables import table_of


def slice_name(name: str, number: int, budget_bytes: int) -> str:
    """Name of the run of a slice: that of the search, and the budget of a slice that is not its first."""
    return f"{name}-sliced-{budget_bytes}" if number else f"{name}-sliced"


def sliced_run(run: Run, plan: Path, name: str) -> Run:
    """The run whose train stage the slice becomes: as if it had been trained with `embedding=plan`."""
    embedding = {
        "_target_": f"{PlanFileConfig.__module__}.{PlanFileConfig.__qualname__}",
        "init": {"distribution": "normal", "scale": 1e-4, "center": 0.0},
        "budget_mib": None,
        "compression_ratio": None,
        "full_below": 0,
        "path": str(plan),
    }
    values: dict[str, Any] = {**run.values, "name": name, "embedding": embedding, "search": None}
    return Run(build_config(RunConfig, values, key=""), values)


def write_slices(run: Run, space: Space, folder: Path, device: torch.device) -> list[Run]:
    """Write the train stages of the slices of all budgets, on all ranks together.

    Args:
        run: of the search.
        space: of the supernet.
        folder: of the search's stage, finished.
        device: to validate on.
    """
    slices = []
    for number, point in enumerate(read_frontier(folder).points):
        path = folder / plan_name(number, point.budget_bytes)
        sliced = sliced_run(run, path, slice_name(run.config.name, number, point.budget_bytes))
        key = StageKey(
            stage="train",
            config=trained_from(sliced),
            inputs={"ingest": fingerprint(run.stage("ingest")), f"embedding:{path}": file_fingerprint(path)},
            resolved=sliced.values,
            worth_keeping=WHOLE_CHECKPOINT,
        )
        with stage(sliced.stage("train"), key, overwrite=True) as aside:
            if aside is not None:
                _write_slice(sliced, space, folder / "work" / SUPERNET / LAST, path, device, aside)
        slices.append(sliced)
    return slices


def _write_slice(sliced: Run, space: Space, supernet: Path, plan: Path, device: torch.device, aside: Path) -> None:
    """Write checkpoint, plan and figures of one slice; speed and memory are those of what trained the supernet."""
    built = build_model(sliced.config, Manifest.read(sliced.stage("ingest")))
    state = sliced_state(built, checkpoint.read_tensors(supernet, "model."), space, read_choice(plan))
    note = {"plan": built.plan.fingerprint, "sliced_from": str(supernet)}
    checkpoint.save(aside / CHECKPOINTS / "best", {"model": state}, note)
    built.model.load_state_dict(state)
    figures = validated(sliced, built, device)
    if dist.get_rank() == 0:
        progress = json.loads((supernet / checkpoint.STATE_NAME).read_text())["progress"]
        metrics = {
            **figures,
            "train.rows_per_second": round(progress["rows"] / max(progress["seconds"], 1e-9), 1),
            "train.peak_rss_mib": round(peak_mib(), 1),
            "plan.bytes": built.plan.num_bytes,
            "model.dense_parameters": built.num_dense_parameters,
        }
        (aside / "plan.json").write_text(built.plan.to_json())
        (aside / "history.json").write_text("[]")
        (aside / "metrics.json").write_text(json.dumps(metrics, indent=1))


def validated(run: Run, built: PlannedModel, device: torch.device) -> dict[str, float]:
    """The task's figures, such as AUC and log loss, on the run's validation rows, as a training reports them; nothing
    where there are none.
    """
    data = run.stage("ingest")
    manifest = Manifest.read(data)
    if not manifest.splits["validation"].num_rows:
        return {}
    scorer = Replica(built.model.to(device), device)
    found = task_of(run.config, manifest).evaluate(scorer, loaders(run, data)("validation", False))
    return {name.replace("_", ".", 1): value for name, value in found.items()}


def sliced_state(built: PlannedModel, trained: dict[str, Tensor], space: Space, choice: Choice) -> dict[str, Tensor]:
    """State of a plan's model: columns of the supernet's rows where it has tables, the supernet's weights elsewhere."""
    rows = {key.split(".")[-2]: value for key, value in trained.items() if key.split(".")[-2].startswith("table_")}
    pieces = {}
    for feature, own in zip(space.features, choice.features, strict=True):
        entry = next(entry for entry in built.plan.features if entry.feature.name == feature.name)
        for name, (start, piece) in zip(entry.tables, with_rows(own), strict=True):
            source = rows[f"table_{feature.name}"][start : start + piece.size]
            pieces[name] = source[:, list(piece.columns)]
    state = dict(built.model.state_dict())
    for key, value in state.items():
        table = table_of(key, built.plan)
        if table is None:
            state[key] = trained[key]
        else:
            value.zero_()
            value[:, : table.embedding_dim] = pieces[table.name]
    return state
