"""`infer` writes a yaml that `dataset=` takes; `quality` writes a page and its numbers."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipelines import infer, quality
from pipelines.config import load
from recsys.core.errors import ConfigError
from tests.pipelines.world import SMALL, command_line, composed, do, make_run


def test_a_proposal_is_printed_or_written_and_ingested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = range(300)
    frame = {"click": [i * i % 7 < 2 for i in rows], "user_id": [i % 40 for i in rows], "price": [i / 3 for i in rows]}
    pl.DataFrame(frame).with_columns(pl.col("click").cast(pl.Int8)).write_csv(tmp_path / "raw.csv")
    told = f"infer.files=[{tmp_path / 'raw.csv'}]"
    infer.work(make_run(tmp_path / "runs", told))
    printed = capsys.readouterr().out
    output = f"infer.output={tmp_path / 'mine.yaml'}"
    infer.work(make_run(tmp_path / "runs", told, output))
    assert (tmp_path / "mine.yaml").read_text() == printed
    wanted = ("dataset.schema=infer", f"dataset.path={tmp_path / 'raw.csv'}")
    assert command_line("ingest", tmp_path / "runs", *wanted) == 0 and capsys.readouterr().out == printed
    assert command_line("ingest", tmp_path / "runs", *wanted[:1]) == 1
    assert "infer.files=[]: name the files" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"mine.yaml: exists already"):
        infer.work(make_run(tmp_path / "runs", told, output))
    with pytest.raises(ConfigError, match=rf"infer.output={tmp_path}: cannot be written \(Is a directory\)"):
        infer.work(make_run(tmp_path / "runs", told, f"infer.output={tmp_path}", "overwrite=true"))
    with pytest.raises(ConfigError, match=r"infer.files=\[\]: name the files"):
        infer.work(make_run(tmp_path / "runs"))
    config = composed(f"runs={tmp_path / 'runs'}")
    config.dataset = yaml.safe_load(printed)
    assert load(config).config.dataset.name == "mine"


def test_the_page_and_its_numbers(runs: Path) -> None:
    run = do("ingest", runs, *SMALL)
    quality.work(run)
    found = json.loads((run.stage("quality") / "quality.json").read_text())
    assert found["rows"] == {"train": 2400, "validation": 300, "test": 300}
    assert {feature["name"] for feature in found["features"]} >= {"I1", "C1", "tags"}
    assert found["method_bytes"]["full"] > 0 and len(found["method_bytes"]) > 20
    assert "Data quality" in (run.stage("quality") / "quality.html").read_text()
