"""The table of recall by bytes: figures as evaluation reports them, differences by hand, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys.core.errors import ConfigError
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import do
from tools import recall_by_bytes
from tools.recall_by_bytes import Ranked, read_run, table


def ranked(name: str, num_bytes: int, recall: list[float]) -> Ranked:
    values = torch.tensor(recall, dtype=torch.float64)
    return Ranked(name, num_bytes, "data", torch.arange(1, len(recall) + 1), values, values / 2)


def test_rows_by_hand() -> None:
    found = [
        ranked("a", 400, [0.5, 0.0, 1.0, 0.5]),
        ranked("b", 100, [0.5, 0.0, 0.5, 0.5]),
        ranked("c", 200, [0.0] * 4),
    ]
    lines = table(found, 10).splitlines()
    assert lines[0].startswith("| run | bytes | smaller | Recall@10 | NDCG@10 |")
    assert lines[2] == "| a | 400 | 1.0× | 0.5000 | 0.2500 |  |  | ★ |"
    assert lines[3].startswith("| c | 200 | 2.0× | 0.0000 | 0.0000 | -0.5000 |") and "★" not in lines[3]
    assert lines[4] == "| b | 100 | 4.0× | 0.3750 | 0.1875 | -0.1250 | -0.3700 to +0.1200 | ★ |"  # 1.96 * .25 / 2


def test_runs_of_other_users_are_refused() -> None:
    first = ranked("a", 400, [0.5, 0.0])
    with pytest.raises(ConfigError, match="b and a rank for other users"):
        table([first, replace(first, name="b", data="other")], 10)


def test_it_reads_what_evaluation_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (*SMALL, *ENCODER, "train.epochs=1", *files(tmp_path))
    runs = tmp_path / "runs"
    for stage in ("ingest", "train", "evaluate"):
        do(stage, runs, *given)
        if stage != "ingest":
            do(stage, runs, *given, "name=narrow", "embedding=int8")
    metrics = json.loads((runs / "narrow/evaluate/metrics.json").read_text())
    narrow = read_run(runs, "narrow", 10)
    assert float(narrow.recall.mean()) == pytest.approx(metrics["recall_at_10"])
    assert float(narrow.ndcg.mean()) == pytest.approx(metrics["ndcg_at_10"])
    recall_by_bytes.main(["--runs", str(runs), "--k", "10", "small", "narrow"])
    assert "| narrow | 1,632 | 2.0× |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--k 11: the lists of small have 10 places"):
        read_run(runs, "small", 11)
    with pytest.raises(SystemExit):
        recall_by_bytes.main(["--runs", str(runs), "absent"])
