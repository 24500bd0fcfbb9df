"""What an interrupted ingest has done: one small file a shard, which appears when the shard's work is on disk."""

import json
import shutil
from pathlib import Path

from recsys.data.dataset import SPLIT_NAMES
from recsys.data.encoder import VOCABULARY_FOLDER
from recsys.data.faults import REJECTED_FOLDER

STATE_FOLDER, KEY_NAME = "state", "key.json"
MADE = (*SPLIT_NAMES, VOCABULARY_FOLDER, REJECTED_FOLDER)
"""What else an ingest makes, shard by shard."""


def put_json(path: Path, value: object) -> None:
    """Write a file that is either whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


def holds(folder: Path, key: str) -> bool:
    """True if the work in a folder was begun for `key`."""
    known = folder / KEY_NAME
    return known.is_file() and bool(json.loads(known.read_text()) == key)


def begin(folder: Path, key: str) -> None:
    """Empty a folder for work of `key`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    put_json(folder / KEY_NAME, key)


class State:
    """`state/` of a dataset folder: of each pass a stem for each shard, `<stem>.json` once it is done."""

    def __init__(self, folder: Path, key: str) -> None:
        """Go on with what is there if it was made for `key`; else begin anew."""
        self._folder = folder / STATE_FOLDER
        if not holds(self._folder, key):
            for name in MADE:
                shutil.rmtree(folder / name, ignore_errors=True)
            begin(self._folder, key)

    def stem(self, work: str, shard: int) -> Path:
        """Path of that shard's state in that pass, without an ending."""
        return self._folder / f"{work}-{shard:06d}"

    def done(self, work: str, num_shards: int) -> set[int]:
        """Shards that the pass is done with."""
        return {shard for shard in range(num_shards) if self.stem(work, shard).with_suffix(".json").is_file()}

    def drop(self) -> None:
        """Forget all."""
        shutil.rmtree(self._folder)
