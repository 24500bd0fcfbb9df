"""What a stage promises: work is done once, taken up where it stopped, and never half done under a finished name."""

import contextlib
import json
import multiprocessing
from pathlib import Path

import pytest

from pipelines.lock import locked
from pipelines.stage import STAGE_NAME, StageKey, fingerprint, stage
from recsys.core.errors import ConfigError, DataError, StageError
from tests.pipelines.world import MODEL, SMALL, contents, do, finished, make_run


def times(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def test_a_second_run_does_nothing(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(runs)
    do("run", runs, *SMALL)
    assert times(runs) == before
    assert f"export    {runs}/small/export: model.pt" in capsys.readouterr().out


def test_only_later_stages_follow_a_changed_option(runs: Path) -> None:
    before = times(runs)
    do("run", runs, *SMALL, "evaluate.num_bins=7", "overwrite=true")
    changed = {path for path, time in times(runs).items() if before.get(path) != time}
    assert changed and all("/small/evaluate/" in path for path in changed)

    before = times(runs)
    do("run", runs, *SMALL, "evaluate.num_bins=7", "train.optimizer.dense_learning_rate=0.002", "overwrite=true")
    same = {path for path, time in times(runs).items() if before.get(path) == time}
    assert same == {path for path in before if "/data/" in path}


def test_a_changed_option_needs_permission_to_replace(runs: Path) -> None:
    before = contents(runs)
    with pytest.raises(
        StageError, match=r"small/train holds another result \(train.epochs is 1 there, 2 here\). .*overwrite=true"
    ):
        do("run", runs, *SMALL, "train.epochs=2")
    assert contents(runs) == before


@pytest.mark.parametrize("option", ["embedding=hash", "model.num_cross_layers=2"])
@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_options_of_another_training_are_refused_even_when_the_stage_is_done(
    name: str, option: str, runs: Path
) -> None:
    before = contents(runs)
    key = option.split("=")[0]
    with pytest.raises(StageError, match=rf"small/train was made with other options \({key}.* is .* there, .* here\)"):
        do(name, runs, *SMALL, option)
    assert contents(runs) == before


def test_a_stage_before_its_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"data/synthetic-\w+ does not exist. Run the stage that writes it first"):
        do("train", tmp_path / "runs", *SMALL)
    assert finished(tmp_path / "runs") == set()


def test_a_half_written_folder_is_never_taken_as_finished(runs: Path) -> None:
    train = runs / "small" / "train"
    record = json.loads((train / STAGE_NAME).read_text())
    (train / STAGE_NAME).write_text(json.dumps({**record, "finished": False}))
    with pytest.raises(StageError, match="small/train is unfinished"):
        do("evaluate", runs, *SMALL)
    (train / STAGE_NAME).write_text('{"stage": "tr')
    with pytest.raises(StageError, match="small/train is unfinished"):
        fingerprint(train)
    (train / STAGE_NAME).unlink()
    with pytest.raises(StageError, match=r"small/train holds another result \(it was not written by a stage\)"):
        do("train", runs, *SMALL)
    train.rename(train.with_name("train.partial"))
    with pytest.raises(StageError, match="small/train is unfinished"):
        do("export", runs, *SMALL)


def test_an_interrupted_ingest_gives_the_same_bytes(runs: Path) -> None:
    """Whatever an attempt left behind, a part file too many or half a vocabulary, does not reach the result."""
    folder = make_run(runs, *SMALL).stage("ingest")
    before = contents(folder)
    record = json.loads((folder / STAGE_NAME).read_text())
    aside = folder.rename(folder.with_name(folder.name + ".partial"))
    (aside / STAGE_NAME).write_text(
        json.dumps({key: record[key] for key in ("stage", "config", "inputs")} | {"finished": False})
    )
    (aside / "manifest.json").unlink()
    (aside / "train" / "part-00000.parquet").write_bytes(b"half")
    (aside / "vocabulary" / "C1.parquet").write_bytes(b"")
    do("ingest", runs, *SMALL)
    after = contents(folder)
    assert {path for path in before if before[path] != after[path]} == {STAGE_NAME}
    assert not aside.exists()


def test_an_attempt_of_other_options_is_not_continued(tmp_path: Path) -> None:
    folder = tmp_path / "result"

    def attempt(value: int) -> list[str]:
        """Names of what an earlier attempt left; ends as an interruption does."""
        found: list[str] = []
        with contextlib.suppress(KeyError), stage(folder, StageKey(stage="s", config={"a": value})) as aside:
            assert aside is not None
            found += [path.name for path in aside.glob("part *")]
            (aside / f"part {value}").touch()
            raise KeyError
        return found

    assert attempt(1) == []
    assert attempt(1) == ["part 1"]
    assert attempt(2) == []
    with stage(folder, StageKey(stage="s", config={"a": 2})) as aside:
        assert aside is not None
    assert sorted(path.name for path in folder.iterdir()) == ["part 2", STAGE_NAME]


def test_replacing_a_result_leaves_nothing_aside(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    for value in (1, 2):
        with stage(folder, StageKey(stage="s", config={"a": value}), overwrite=True) as aside:
            assert aside is not None
            (aside / str(value)).touch()
    assert sorted(path.name for path in folder.iterdir()) == ["2", STAGE_NAME]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_crash_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder, key = tmp_path / "result", StageKey(stage="s", config={})
    with stage(folder, key) as aside:
        assert aside is not None
        (aside / "value").touch()
    folder.rename(tmp_path / "result.partial")  # as `_finish` leaves it just before its last rename
    with stage(folder, key) as aside:
        assert aside is not None and (aside / "value").exists()
    assert (folder / "value").exists()


def _hold(folder: str, held: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with stage(Path(folder), StageKey(stage="s", config={})):
        held.set()
        done.wait(60)


def test_two_processes_do_not_write_the_same_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "result"), held, done))
    other.start()
    assert held.wait(60)
    with (
        pytest.raises(
            StageError,
            match=r"result is being written by another process \(lock .*result.lock\). Wait for it, or choose",
        ),
        stage(tmp_path / "result", StageKey(stage="s", config={})),
    ):
        pass
    done.set()
    other.join()
    assert other.exitcode == 0
    with stage(tmp_path / "result", StageKey(stage="s", config={})) as aside:
        assert aside is None, "the other's result counts"


def test_refused_work_leaves_nothing_behind(tmp_path: Path) -> None:
    with contextlib.suppress(DataError), stage(tmp_path / "result", StageKey(stage="s", config={})) as aside:
        assert aside is not None
        (aside / "half").touch()
        raise DataError("bad row")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_work", [True, False])
def test_refused_work_is_kept_only_where_it_is_worth_going_on_with(has_work: bool, tmp_path: Path) -> None:
    def key(value: int) -> StageKey:
        return StageKey(stage="s", config={"a": value}, worth_keeping="checkpoints/last*/state")

    with contextlib.suppress(ConfigError), stage(tmp_path / "result", key(1)) as aside:
        assert aside is not None
        (aside / "checkpoints" / "last").mkdir(parents=True)
        if has_work:
            (aside / "checkpoints" / "last" / "state").touch()
        raise ConfigError("the loss became nan")
    assert [path.name for path in tmp_path.iterdir()] == ["result.partial"] * has_work
    mended = (
        pytest.raises(StageError, match="interrupted run of other options") if has_work else contextlib.nullcontext()
    )
    with mended, stage(tmp_path / "result", key(2)):
        pass


def _count(folder: str, rounds: int) -> None:
    for _ in range(rounds):
        with locked(Path(folder) / "counted", wait=True):
            value = int((Path(folder) / "number").read_text())
            (Path(folder) / "number").write_text(str(value + 1))


def test_a_lock_that_is_deleted_after_use_still_lets_one_in_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_count, args=(str(tmp_path), 200)) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0] * 4
    assert (tmp_path / "number").read_text() == "800"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_a_changed_raw_file_is_noticed(tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    rows = [f"{i % 2},{i}.5,item{i % 7}\n" for i in range(200)]
    raw.write_text("y,price,item\n" + "".join(rows))
    overrides = (
        *MODEL,
        "dataset=csv",
        f"dataset.files=[{raw}]",
        "dataset.label=y",
        "dataset.numeric=[{name: price}]",
        "dataset.categorical=[{name: item}]",
    )
    runs = tmp_path / "runs"
    folder = do("ingest", runs, *overrides).stage("ingest")
    first, written = fingerprint(folder), times(folder)
    do("ingest", runs, *overrides)
    assert times(folder) == written
    raw.write_text("y,price,item\n" + "".join(rows[:-1]) + "1,7,new\n")
    do("ingest", runs, *overrides)
    assert fingerprint(folder) != first
