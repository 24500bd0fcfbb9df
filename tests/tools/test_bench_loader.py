"""The benchmark of the loader, on next to nothing."""

import json
from pathlib import Path

import pytest

from pipelines.pareto_cells import compose_run
from recsys.core.errors import ConfigError
from tools import bench_train
from tools.bench_loader import LOADER, MODEL, RATIO, main


def test_rows_of_loader_and_model_and_their_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = "dataset.num_rows=2000"
    monkeypatch.setattr(bench_train, "compose_run", lambda words: compose_run([*words, few]))
    arguments = ["--rounds", "1", "--threads", "1", "--batch-size", "64", "--precision", "float32"]
    main(["lr@planted_interests", *arguments, "--out", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())["lr@planted_interests"]
    assert figures.keys() == {LOADER, MODEL, RATIO} and min(figures.values()) > 0
    assert figures[RATIO] == pytest.approx(figures[LOADER] / figures[MODEL])
    assert "lr@planted_interests" in capsys.readouterr().out


def test_generated_rows_have_no_files() -> None:
    with pytest.raises(ConfigError, match=r"lr@2600: has no files to load"):
        main(["lr@2600", "--rounds", "1", "--threads", "1", "--batch-size", "64"])
