"""The benchmark of ingest, on next to nothing."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from recsys.data.criteo import CATEGORICAL
from tools.bench_ingest import COLUMNS, PERTURBED, copies, main


def sample(num_rows: int = 400) -> pl.DataFrame:
    ids = {name: [f"{number}-{row % 7}" for row in range(num_rows)] for number, name in enumerate(CATEGORICAL)}
    numbers = {name: [str(row % 5) for row in range(num_rows)] for name in COLUMNS[1:14]}
    return pl.DataFrame({"label": [str(row % 2) for row in range(num_rows)], **numbers, **ids}).select(COLUMNS)


def test_copies_change_a_share_of_the_ids_and_nothing_else() -> None:
    first, second, third = copies(sample(), 900)
    assert first.equals(sample()) and (second.height, third.height) == (400, 100)
    assert second.select(COLUMNS[:14]).equals(first.select(COLUMNS[:14]))
    changed = (second.select(CATEGORICAL) != first.select(CATEGORICAL)).mean_horizontal().mean()
    assert isinstance(changed, float) and abs(changed - PERTURBED) < 0.02


def test_figures_of_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample().write_csv(tmp_path / "sample.tsv", separator="\t", include_header=False)
    paths = ["--sample", str(tmp_path / "sample.tsv"), "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["bench_ingest", "--rows", "500", "1000", *paths])
    main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["rows"] for line in lines] == [500, 1000]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(line["peak_mib"] >= line["imported_mib"] > 0 for line in lines)
