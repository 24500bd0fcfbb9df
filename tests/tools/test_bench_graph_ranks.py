"""Two ranks of a small training: halves of a layer, and bytes that can be counted by hand."""

import re
import subprocess
import sys
from pathlib import Path

from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import environment


def test_a_rank_of_two_holds_half_a_layer_and_sends_what_its_batch_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.bench_graph_ranks", *SMALL, *ENCODER, *files(tmp_path)]
    command += ["train.batch_size=1000", "retrieval.model.embedding_dim=500", "train.run_on.num_processes=2"]
    finished = subprocess.run(
        [*command, f"runs={tmp_path}/runs"],
        capture_output=True,
        text=True,
        env={**environment(), "COLUMNS": "250"},
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    rows = re.findall(r"│ (\d) of 2 +│ (.*)", finished.stdout)
    assert [rank for rank, _ in rows] == ["0", "1"]
    for _, row in rows:
        figures = [float(value.replace(",", "")) for value in re.findall(r"[\d.,]+", row)]
        tables, gradients, optimizer, layer, before, peak, _, exchanged, gathered, added = figures
        nodes = 102 * 500 * 4 / 1e6  # 61 users and 41 items, each with the unknown one
        assert abs(tables - nodes) < 0.05 and abs(layer - nodes / 2) < 0.05
        assert abs(gradients - nodes) < 0.05 and abs(optimizer - 2 * nodes) < 0.05
        assert peak > before > 0
        # Half the columns of half the nodes go to the other rank and half stay, in the forward and the backward pass.
        assert abs(exchanged - nodes) < 0.05
        assert gathered > 0 and added > nodes
