"""What the lock of a stage leaves behind: nothing, unless something was made under it."""

from pathlib import Path

import pytest

from pipelines.lock import locked
from pipelines.stage import StageKey, stage
from recsys.core.errors import ConfigError


def test_a_refused_stage_leaves_no_empty_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "sweep" / "a" / "train"
    with pytest.raises(ConfigError), stage(folder, StageKey(stage="train", config={})):
        raise ConfigError("as if the loss became infinite")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_made_stays(tmp_path: Path) -> None:
    kept = tmp_path / "runs"
    kept.mkdir()
    with locked(kept / "a" / "train", wait=False):
        assert (kept / "a" / "train.lock").is_file()
    assert kept.is_dir() and list(kept.iterdir()) == []
    with locked(kept / "a" / "train", wait=False):
        (kept / "a" / "log.txt").write_text("made")
    assert [path.name for path in (kept / "a").iterdir()] == ["log.txt"]
