"""Vectors of a graph as frozen numbers of a click model: joined to rows, ingested, trained on."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from pipelines import join_vectors
from recsys.core.errors import ConfigError, DataError
from recsys.export.script import load_scripted
from tests.pipelines.test_retrieval import SMALL, files
from tests.pipelines.world import MODEL, STAGES, do, make_run
from tests.retrieval.world import pairs


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A folder of results with FastRP's vectors exported, and the overrides."""
    folder = tmp_path_factory.mktemp("graph")
    given = (*SMALL, "retrieval/model=fast_rp", "retrieval.model.embedding_dim=8", *files(folder))
    for stage in STAGES:
        do(stage, folder / "runs", *given)
    return folder / "runs", given


def clicks(path: Path) -> None:
    """Rows of a click model; the last users and items are new."""
    liked = set(pairs())
    rows = [(u, i, int((u, i) in liked)) for u in range(66) for i in range(44)]
    path.write_text("user,item,click\n" + "".join(f"{u},{3 * i},{click}\n" for u, i, click in rows))


def test_rows_get_the_vectors_of_their_users_and_items(graph: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    clicks(tmp_path / "rows.csv")
    target = tmp_path / "rows.parquet"
    given = (*graph[1], f"predict.input={tmp_path / 'rows.csv'}", f"predict.output={target}")
    join_vectors.work(make_run(graph[0], *given))
    rows, bundle = pl.read_parquet(target), graph[0] / "small/export"
    assert rows.height == 66 * 44 and rows.columns[3:5] == ["user_vector_0", "user_vector_1"]
    users = torch.tensor(rows["user"].cast(pl.Int64).to_list())
    expected = load_scripted(bundle / "model.pt").query({"user": users})
    found = rows.select(pl.selectors.starts_with("user_vector_")).to_torch()
    torch.testing.assert_close(found, expected)
    assert not found[users >= 60].any(), "users that training never met have zeros"
    known = pl.read_parquet(bundle / "items.parquet")
    of_items = dict(zip(known["key"], known["vector"].to_list(), strict=True))
    names = [f"item_vector_{number}" for number in range(8)]
    for row in rows.sample(50, seed=1).iter_rows(named=True):
        assert [row[name] for name in names] == pytest.approx(of_items.get(int(row["item"]), [0.0] * 8))
    join_vectors.work(make_run(graph[0], *given))  # unchanged: nothing to do

    numeric = ",".join(f"{{name: {name}, transform: identity}}" for name in rows.columns[3:])
    categorical = "[{name: user, key_type: integer}, {name: item, key_type: integer}]"
    click = ("dataset=parquet", f"dataset.files=[{target}]", "dataset.label=click", f"dataset.numeric=[{numeric}]")
    more = (*MODEL, "train.epochs=4", "train.optimizer.dense_learning_rate=0.01", "name=clicks")
    for stage in ("ingest", "train"):
        run = do(stage, tmp_path / "runs", *click, f"dataset.categorical={categorical}", *more)
    assert json.loads((run.stage("train") / "metrics.json").read_text())["validation.auc"] > 0.6


def test_what_cannot_be_joined_is_refused(graph: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"predict\.input is empty"):
        join_vectors.work(make_run(graph[0], *graph[1]))
    with pytest.raises(DataError, match="no such file"):
        join_vectors.work(make_run(graph[0], *graph[1], f"predict.input={tmp_path / 'absent.csv'}"))
    (tmp_path / "rows.csv").write_text("person,click\n1,0\n")
    with pytest.raises(DataError, match="neither 'user' nor 'item'"):
        join_vectors.work(make_run(graph[0], *graph[1], f"predict.input={tmp_path / 'rows.csv'}"))
    given = (*SMALL, *graph[1][-2:], "retrieval/model=item_cf", "name=neighbours")
    for stage in ("train", "export"):
        do(stage, graph[0], *given)
    with pytest.raises(ConfigError, match="scores of a NeighborRecommender are no dot products"):
        join_vectors.work(make_run(graph[0], *given, f"predict.input={tmp_path / 'rows.csv'}"))
