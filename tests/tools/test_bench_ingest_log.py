"""The benchmark of event logs, on next to nothing."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from tools.bench_ingest_log import EVENTS_PER_USER, generate, main


def test_users_grow_with_events_and_times_go_up(tmp_path: Path) -> None:
    generate(tmp_path / "log.csv", 10_000)
    log = pl.read_csv(tmp_path / "log.csv")
    assert log.columns == ["user", "item", "category", "time"] and log.height == 10_000
    assert log["user"].n_unique() == 10_000 // EVENTS_PER_USER and log["time"].is_sorted()
    assert log.group_by("item").agg(pl.col("category").n_unique())["category"].max() == 1


def test_figures_of_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_ingest_log", "--events", "4000", "8000", "--folder", str(tmp_path)])
    main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["events"] for line in lines] == [4_000, 8_000]
    assert all(math.isfinite(value) for line in lines for value in line.values() if not isinstance(value, str))
    assert all(line["peak_mib"] >= line["imported_mib"] > 0 and line["users"] > 0 for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4000.csv", "8000.csv"]
