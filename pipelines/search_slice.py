"""A plan's tables cut out of a trained supernet: a run that was trained by slicing, ready to evaluate and to export."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.config import Run, RunConfig
from pipelines.model import CHECKPOINTS, PlannedModel, build_model
from pipelines.search_report import read_choice
from pipelines.search_training import LAST, SUPERNET
from pipelines.stage import StageKey, fingerprint, stage
from pipelines.train import WHOLE_CHECKPOINT, loaders, trained_from
from recsys.core.jsonable import build_config
from recsys.core.manifest import Manifest
from recsys.data.fingerprint import file_fingerprint
from recsys.embeddings.planned import PlanFileConfig
from recsys.search.choice import Choice, Space, with_rows
from recsys.train import checkpoint
from recsys.train.score import Replica
from recsys.train.tables import table_of
from recsys.train.task import ClickTask

SUFFIX = "-sliced"


def sliced_run(run: Run, plan: Path) -> Run:
    """The run whose train stage the slice becomes: as if it had been trained with `embedding=plan`."""
    embedding = {
        "_target_": f"{PlanFileConfig.__module__}.{PlanFileConfig.__qualname__}",
        "init": {"distribution": "normal", "scale": 1e-4, "center": 0.0},
        "budget_mib": None,
        "compression_ratio": None,
        "full_below": 0,
        "path": str(plan),
    }
    values: dict[str, Any] = {**run.values, "name": run.config.name + SUFFIX, "embedding": embedding, "search": None}
    return Run(build_config(RunConfig, values, key=""), values)


def write_slice(run: Run, space: Space, folder: Path, device: torch.device) -> Run:
    """Write the train stage of the sliced run, on all ranks together.

    Args:
        run: of the search.
        space: of the supernet.
        folder: of the search's stage, finished; its first choice is taken.
        device: to validate on.
    """
    sliced, data, path = sliced_run(run, folder / "plan.json"), run.stage("ingest"), folder / "plan.json"
    key = StageKey(
        stage="train",
        config=trained_from(sliced),
        inputs={"ingest": fingerprint(data), f"embedding:{path}": file_fingerprint(path)},
        resolved=sliced.values,
        worth_keeping=WHOLE_CHECKPOINT,
    )
    with stage(sliced.stage("train"), key, overwrite=True) as aside:
        if aside is None:
            return sliced
        built = build_model(sliced.config, Manifest.read(data))
        trained = checkpoint.read_tensors(folder / "work" / SUPERNET / LAST, "model.")
        state = sliced_state(built, trained, space, read_choice(folder))
        note = {"plan": built.plan.fingerprint, "sliced_from": str(folder)}
        checkpoint.save(aside / CHECKPOINTS / "best", {"model": state}, note)
        built.model.load_state_dict(state)
        figures = validated(sliced, built, device)
        if dist.get_rank() == 0:
            metrics = {
                **figures,
                "plan.bytes": built.plan.num_bytes,
                "model.dense_parameters": built.num_dense_parameters,
            }
            (aside / "plan.json").write_text(built.plan.to_json())
            (aside / "history.json").write_text("[]")
            (aside / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return sliced


def validated(run: Run, built: PlannedModel, device: torch.device) -> dict[str, float]:
    """AUC and log loss on the run's validation rows, as a training reports them; nothing where there are none."""
    data = run.stage("ingest")
    if not Manifest.read(data).splits["validation"].num_rows:
        return {}
    found = ClickTask().evaluate(Replica(built.model.to(device), device), loaders(run, data)("validation", False))
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
