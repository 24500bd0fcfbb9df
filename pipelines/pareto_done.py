"""A note beside a cell that all its stages are done, so that a sweep that goes on need not start a process to learn it.

Only a shortcut: where the note is missing or says something else, the stages decide by themselves.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipelines.entry import CONFIG_FOLDER
from pipelines.pareto_results import CellFolders

NOTE = "done.json"


def is_done(folders: CellFolders, stages: Sequence[str], data: str) -> bool:
    """True if these stages were done by the same overrides, configuration files, plan, data and training.

    Args:
        folders: of the cell.
        stages: names, in order.
        data: fingerprint of the ingested data.
    """
    try:
        noted = json.loads((_folder(folders) / NOTE).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    whole = all((folders.stage(stage) / "stage.json").is_file() for stage in ("train", *stages))
    return bool(whole and set(stages) <= set(noted["stages"]) and noted["key"] == _key(folders, data))


def note_done(folders: CellFolders, stages: Sequence[str], data: str) -> None:
    """Note it, in place of an earlier note."""
    path, key = _folder(folders) / NOTE, _key(folders, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stages": list(stages), "key": key}))


def _folder(folders: CellFolders) -> Path:
    return folders.runs / folders.job.name


def _key(folders: CellFolders, data: str) -> str:
    trained = json.loads((folders.stage("train") / "stage.json").read_text())["fingerprint"]
    parts = [folders.job.overrides, folders.job.budget.served, data, trained, _configuration()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def _configuration() -> str:
    """Digest of all files of the configuration folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(CONFIG_FOLDER).rglob("*.yaml")):
        digest.update(f"{path.relative_to(CONFIG_FOLDER)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
