"""Recall of evaluated retrieval runs by the bytes of their embeddings, and how each differs from the first of them.

    python -m tools.recall_by_bytes [--runs runs] [--k 20] NAME NAME …

Runs are made by, for instance, `python -m pipelines.run --multirun experiment=graph/gowalla embedding=full,int8,pq`.
They must be of one data set. Differences are means over users, each user against himself, with 95% intervals from their
spread: other users, the same trainings; what another seed changes needs runs of several seeds. A star marks a run that
no other one beats at as many bytes or fewer. Bytes are those of the plan's tables, remaps and combiners; exported
files hold the vectors made of them, which take as much under every method.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipelines.config import Run, RunConfig
from pipelines.retrieval_evaluate import LISTS_NAME
from pipelines.retrieval_model import KNOWN
from pipelines.stage import read_record
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.jsonable import build_config
from recsys.data.interactions import read_interactions, relevant_pairs
from recsys.retrieval.ranking import Ranking, Relevant, judge

Z = 1.96
HEADS = ("run", "bytes", "smaller", "recall", "NDCG", "recall - first", "95% interval", "frontier")


@dataclass(frozen=True)
class Ranked:
    """An evaluated run: bytes of its embeddings, not of vectors made of them; recall and NDCG by test user, float64."""

    name: str
    num_bytes: int
    data: str  # folder of the ingested data
    users: Tensor
    recall: Tensor
    ndcg: Tensor


def read_run(runs: Path, name: str, k: int) -> Ranked:
    """Judge a run's stored lists.

    Raises:
        RecsysError: it was not evaluated, or is none of trained embeddings of users and items.
    """
    folder = runs / name / "evaluate"
    values = {**read_record(folder)["resolved"], "runs": str(runs)}
    metrics = json.loads((folder / "metrics.json").read_text())
    if values.get("retrieval") is None or "context.embedding_bytes" not in metrics:
        raise ConfigError(f"{name}: not a run that trains embeddings of users and items. Leave it out.")
    data = Run(build_config(RunConfig, values, key=""), values).stage("ingest")
    frame = pl.read_parquet(folder / LISTS_NAME)
    lists = Ranking(frame["user"].to_torch(), torch.tensor(frame["items"].to_list()))
    if lists.items.shape[1] < k:
        raise ConfigError(f"--k {k}: the lists of {name} have {lists.items.shape[1]} places. Evaluate with more.")
    history = read_interactions(data, KNOWN)
    relevant = Relevant.of(*relevant_pairs(data, "test"), history)
    found = judge(lists, relevant, ks=[k], num_shown=history.num_items - 1).values
    return Ranked(
        name,
        int(metrics["context.embedding_bytes"]),
        str(data),
        lists.users,
        found[f"recall_at_{k}"],
        found[f"ndcg_at_{k}"],
    )


def table(found: Sequence[Ranked], k: int) -> str:
    """Markdown, by falling bytes.

    Raises:
        ConfigError: the runs are not of the same test users.
    """
    first = found[0]
    for other in found[1:]:
        if other.data != first.data or not torch.equal(other.users, first.users):
            raise ConfigError(f"{other.name} and {first.name} rank for other users: name runs of one data set.")
    heads = [{"recall": f"Recall@{k}", "NDCG": f"NDCG@{k}"}.get(head, head) for head in HEADS]
    rows = [heads, ["---"] * len(heads)]
    best = -math.inf
    starred = set()
    for run in sorted(found, key=lambda run: (run.num_bytes, -float(run.recall.mean()))):
        if float(run.recall.mean()) > best:
            best = float(run.recall.mean())
            starred.add(run.name)
    for run in sorted(found, key=lambda run: -run.num_bytes):
        difference = run.recall - first.recall
        half = Z * float(difference.std()) / math.sqrt(max(len(difference), 1))
        mean = float(difference.mean())
        rows.append(
            [
                run.name,
                f"{run.num_bytes:,}",
                f"{first.num_bytes / max(run.num_bytes, 1):.1f}×",
                f"{float(run.recall.mean()):.4f}",
                f"{float(run.ndcg.mean()):.4f}",
                f"{mean:+.4f}" if run is not first else "",
                f"{mean - half:+.4f} to {mean + half:+.4f}" if run is not first else "",
                "★" if run.name in starred else "",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Recall of evaluated retrieval runs by bytes of their embeddings.")
    parser.add_argument("names", nargs="+", help="evaluated runs, folders below --runs, the baseline first")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--k", type=int, default=20)
    given = parser.parse_args(arguments)
    try:
        print(table([read_run(given.runs, name, given.k) for name in given.names], given.k))
    except RecsysError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
