"""What running FuxiCTR 2.3.10 beside this project takes: its environment, its models, the same rows, its settings.

Its wheel carries layers, training loop, loaders and preprocessing; its models are in the `model_zoo` of its repository.
Both are put below `.bench` when they are first wanted.
"""

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.errors import DataError, StageError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
PEER_VENV, PEER_ZOO = BENCH / "fuxictr-venv", BENCH / "fuxictr-zoo"
READY_NAME = ".ready"
"""In a virtual environment that is whole."""
# `polars<2`: FuxiCTR 2.3.10 calls `scan_csv(dtypes=...)`, which polars 2 no longer takes.
PEER_REQUIREMENTS = (("torch==2.13.0",), ("fuxictr==2.3.10", "polars<2"))
PEER_REPOSITORY = "https://github.com/reczoo/FuxiCTR"
PEER_COMMIT = "0245987fdc1d43c36164ea496a02324885a8557a"  # the first of version 2.3.10
PARTS = {"train": "train", "validation": "valid", "test": "test"}  # our name -> the peer's
CRITEO_NUMERIC = [f"I{i}" for i in range(1, 14)]
CRITEO_CATEGORICAL = [f"C{i}" for i in range(1, 27)]
CRITEO_COLUMNS = ["label", *CRITEO_NUMERIC, *CRITEO_CATEGORICAL]
FRAPPE_IDS = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
FRAPPE_FILES = {"train": "train.reconstructed", "validation": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What the peer trains on which columns; the rest is FuxiCTR's own protocol (see tools/fuxictr_peer.py)."""

    zoo_file: str  # below `model_zoo`
    model: str  # class in that file
    arguments: Mapping[str, Any]  # of the class
    numeric: Sequence[str]
    categorical: Sequence[str]
    numeric_treatment: str  # see `Numeric` in tools/fuxictr_peer.py
    embedding_dim: int
    batch_size: int = 4096
    learning_rate: float = 1e-3
    max_epochs: int = 100


@dataclass(frozen=True, kw_only=True)
class PeerPlace:
    """Where the peer is installed, reads and writes."""

    python: Path
    zoo: Path  # FuxiCTR's repository
    split: Path  # train.csv, valid.csv, test.csv
    work: Path  # its encoded rows, which it takes up again, and its checkpoints

    def command(self, settings: PeerSettings, seed: int, record: Path) -> list[str]:
        """The command line of one training; writes the settings beside `record`."""
        path = record.with_suffix(".settings.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(settings), indent=1) + "\n")
        folders = {"--zoo": self.zoo, "--data": self.split, "--work": self.work}
        given = [str(word) for pair in folders.items() for word in pair]
        script = str(ROOT / "tools" / "fuxictr_peer.py")
        return [str(self.python), script, *given, "--settings", str(path), "--seed", str(seed), "--out", str(record)]


def criteo_rows(data: Path) -> pl.DataFrame:
    """Return the raw Criteo rows as strings, null where a field is empty; frame row i is raw row i."""
    path = data / "criteo-sample" / "random137k.tsv.zst"
    if not path.exists():
        raise DataError(f"{path} is missing: --data must name the folder that holds criteo-sample/ and frappe/.")
    return pl.read_csv(path, separator="\t", has_header=False, new_columns=CRITEO_COLUMNS, infer_schema=False)


def frappe_rows(data: Path, part: str) -> pl.DataFrame:
    """Return one given part of Frappe: label 0/1 and the ten ids as strings."""
    path = data / "frappe" / f"frappe.{FRAPPE_FILES[part]}.libfm.zst"
    if not path.exists():
        raise DataError(f"{path} is missing: --data must name the folder that holds criteo-sample/ and frappe/.")
    raw = pl.read_csv(path, separator=" ", has_header=False, new_columns=["label", *FRAPPE_IDS], infer_schema=False)
    label = (pl.col("label") == "1").cast(pl.Int8)
    return raw.select(label, *(pl.col(name).str.split(":").list.first() for name in FRAPPE_IDS))


def ingested_split(folder: Path) -> dict[str, list[int]]:
    """Return the raw row positions of each part of an ingested data set, ascending."""
    files = {part: sorted((folder / part).glob("part-*.parquet")) for part in PARTS}
    if absent := [part for part, paths in files.items() if not paths]:
        raise DataError(f"{folder}: no part-*.parquet in {', '.join(absent)}; name the folder that ingest wrote.")
    return {part: sorted(pl.read_parquet(paths, columns=["__row__"])["__row__"]) for part, paths in files.items()}


def write_peer_split(frames: Mapping[str, pl.DataFrame], folder: Path) -> dict[str, object]:
    """Write train.csv, valid.csv and test.csv; return rows and digest of each, for the record."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, object] = {}
    for part, frame in frames.items():
        path = folder / f"{PARTS[part]}.csv"
        frame.write_csv(path)
        record[part] = {"rows": len(frame), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return record


def peer_python(venv: Path = PEER_VENV) -> Path:
    """Return the interpreter of the peer's virtual environment, which is made when absent or half made."""
    python, ready = venv / "bin" / "python", venv / READY_NAME
    if not ready.exists():
        shutil.rmtree(venv, ignore_errors=True)
        logger.info("making FuxiCTR's virtual environment in %s (about a minute and 3 GB)", venv)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        for requirements in PEER_REQUIREMENTS:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        ready.touch()
    return python


def peer_zoo(folder: Path = PEER_ZOO) -> Path:
    """Return the peer's repository, which is fetched when absent."""
    if not (folder / "model_zoo").is_dir():
        logger.info("fetching FuxiCTR's models into %s", folder)
        aside = folder.with_name(folder.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        wanted = ["fetch", "--quiet", "--depth", "1", PEER_REPOSITORY, PEER_COMMIT]
        for words in (["init", "--quiet"], wanted, ["checkout", "--quiet", PEER_COMMIT]):
            done = subprocess.run(["git", "-C", str(aside), *words], capture_output=True, text=True, check=False)
            if done.returncode:
                raise StageError(
                    f"git {words[0]} in {aside}: {done.stderr.strip()}. Without a way to {PEER_REPOSITORY}, put commit "
                    f"{PEER_COMMIT} of it into {folder} by hand."
                )
        aside.rename(folder)
    return folder


def installed_peer(split: Path, work: Path, python: Path | None = None) -> PeerPlace:
    """Return the peer ready to run, installing what is missing."""
    return PeerPlace(python=python or peer_python(), zoo=peer_zoo(), split=split, work=work)


def run_timed(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> tuple[float, int]:
    """Run a command to its end, output into `log`; return its wall seconds and peak resident bytes.

    Raises:
        StageError: when it fails, with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        start = time.perf_counter()
        # The peer ends when its standard input does: with this process.
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
        ) as process:
            # Not `process.wait`: only wait4 tells the memory of this very child (and of the children it waited for).
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise StageError(f"{shlex.join(command)} ended with {process.returncode}; the end of {log}:\n{tail}")
    return seconds, usage.ru_maxrss * 1024  # Linux counts KiB
