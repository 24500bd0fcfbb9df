"""The benchmark beside FuxiCTR: both sides get the same rows, and the figures that it prints are the ones measured."""

import argparse
import json
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError, StageError
from tools import fuxictr_setup
from tools.bench_fuxictr import Run, prepare_split, report, run_ours, shuffled_split, summarise
from tools.fuxictr_setup import PARTS, criteo_rows, frappe_rows, ingested_split, run_timed


def make_run(side: str, seed: int, *, seconds: float, rate: float, auc: float) -> Run:
    return Run(
        side=side,
        seed=seed,
        wall_seconds=seconds,
        train_rows_per_second=rate,
        test_auc=auc,
        test_log_loss=0.5,
        peak_rss_bytes=2**20,
        busy_before=0.0,
        details={},
    )


def write_ingested(folder: Path, rows: dict[str, list[int]]) -> None:
    for part, positions in rows.items():
        (folder / part).mkdir(parents=True)
        half = len(positions) // 2
        for number, chosen in enumerate((positions[half:], positions[:half])):
            pl.DataFrame({"__row__": chosen}, schema={"__row__": pl.Int64}).write_parquet(
                folder / part / f"part-{number:05d}.parquet"
            )


def test_shuffled_split_is_8_1_1_and_covers_every_row_once() -> None:
    parts = shuffled_split(137, seed=3)
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 111, "validation": 13, "test": 13}
    assert sorted(row for rows in parts.values() for row in rows) == list(range(137))
    assert parts == shuffled_split(137, seed=3) != shuffled_split(137, seed=4)


def test_the_peer_gets_the_very_raw_rows_that_ingest_chose(data_folder: Path, tmp_path: Path) -> None:
    rows = {"train": [5, 0, 137_138], "validation": [2, 9], "test": [7, 1]}
    write_ingested(tmp_path / "ingest", rows)
    args = argparse.Namespace(dataset="criteo", data=data_folder, split_seed=0)
    record = prepare_split(args, tmp_path / "ingest", tmp_path / "split")
    raw = criteo_rows(data_folder)
    assert raw.height == 137_139
    for part, positions in rows.items():
        written = pl.read_csv(tmp_path / "split" / f"{PARTS[part]}.csv", infer_schema=False)
        assert written.equals(raw[sorted(positions)])
        assert isinstance(record[part], dict)


def test_frappe_parts_keep_their_published_sizes_and_labels(data_folder: Path) -> None:
    frame = frappe_rows(data_folder, "test")
    assert frame.shape == (28_860, 11)
    assert frame["label"].unique().sort().to_list() == [0, 1]
    assert frame["city"].cast(pl.Int64).is_between(5149, 5381).all()


def test_a_split_that_repeats_a_row_is_refused(data_folder: Path, tmp_path: Path) -> None:
    write_ingested(tmp_path, {"train": [0, 1], "validation": [1], "test": [2]})
    args = argparse.Namespace(dataset="criteo", data=data_folder, split_seed=0)
    with pytest.raises(DataError, match="repeats a row"):
        prepare_split(args, tmp_path, tmp_path / "split")


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no part-\*\.parquet in train, validation, test"):
        ingested_split(tmp_path)


def test_a_failing_side_shows_the_end_of_its_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('why it failed'); sys.exit(3)"]
    with pytest.raises(StageError, match=r"ended with 3(?s:.*)why it failed"):
        run_timed(command, tmp_path / "log", {})


def test_ours_runs_the_command_afresh_and_reads_its_two_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "work" / "ours-7" / "bench" / "train" / "metrics.json"
    stale.parent.mkdir(parents=True)
    script = tmp_path / "side.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1]) / 'bench'\n"
        "assert not folder.exists()\n"
        "for stage, record in (('train', {'train.rows_per_second': 10.0, 'train.seconds': 2.0}),\n"
        "                      ('evaluate', {'auc': 0.75, 'log_loss': 0.5})):\n"
        "    (folder / stage).mkdir(parents=True)\n"
        "    (folder / stage / 'metrics.json').write_text(json.dumps(record))\n"
    )
    monkeypatch.setattr(fuxictr_setup, "ROOT", tmp_path)
    args = argparse.Namespace(
        dataset="criteo", data=tmp_path, work=tmp_path / "work", ours="{python} side.py {runs} {seed}"
    )
    run = run_ours(args, 7)
    assert (run.side, run.seed, run.test_auc, run.train_rows_per_second) == ("ours", 7, 0.75, 10.0)
    assert run.details == json.loads(stale.read_text())
    assert run.wall_seconds > 0
    assert run.peak_rss_bytes > 2**20


def test_summary_takes_medians_of_times_and_means_of_metrics() -> None:
    ours = [make_run("ours", s, seconds=t, rate=r, auc=a) for s, t, r, a in [(1, 9, 50, 0.8), (2, 10, 40, 0.6)]]
    ours.append(make_run("ours", 3, seconds=90, rate=5, auc=0.7))
    peer = [make_run("peer", s, seconds=30, rate=10, auc=0.69) for s in (1, 2, 3)]
    summary = summarise([*ours, *peer])
    assert summary["ours"]["wall_seconds"] == 10
    assert summary["ours"]["test_auc"] == pytest.approx(0.7)
    assert summary["ratio"]["times_faster_end_to_end"] == 3
    assert summary["ratio"]["times_training_rows_per_second"] == 4
    assert summary["ratio"]["auc_difference"] == pytest.approx(0.01)
    assert "times faster end to end: +3.0000" in report([*ours, *peer], summary)
