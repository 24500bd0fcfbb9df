"""`pipelines.predict` with a retrieval bundle: lists for known users, for histories of new ones, refusals."""

from pathlib import Path

import polars as pl
import pytest

from pipelines.config import Run
from recsys.core.errors import ConfigError, DataError, StageError
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import STAGES, do


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A folder of results with an exported bundle, and the overrides."""
    folder = tmp_path_factory.mktemp("lists")
    given = (*SMALL, *ENCODER, *files(folder))
    for stage in STAGES:
        do(stage, folder / "runs", *given)
    return folder / "runs", given


def lists(trained: tuple[Path, tuple[str, ...]], source: Path, *more: str) -> pl.DataFrame:
    target = source.with_suffix(".lists.parquet")
    do("predict", trained[0], *trained[1], f"predict.input={source}", f"predict.output={target}", *more)
    return pl.read_parquet(target)


def test_known_users_get_what_evaluation_ranks(trained: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    run: Run = do("evaluate", trained[0], *trained[1])
    ranked = pl.read_parquet(run.stage("evaluate") / "lists.parquet")
    users = pl.read_parquet(run.stage("ingest") / "vocabulary/user.parquet")["key"]
    items = [0, *pl.read_parquet(run.stage("ingest") / "vocabulary/item.parquet")["key"]]
    (tmp_path / "users.csv").write_text("user\n" + "".join(f"{users[u - 1]}\n" for u in ranked["user"]))
    found = lists(trained, tmp_path / "users.csv", "predict.k=10")
    assert found.columns == ["__row__", "user", "items", "scores", "listed_by"]
    assert set(found["listed_by"]) == {"user"}
    expected = [[items[i] for i in row if i] for row in ranked["items"].to_list()]
    assert found["items"].to_list() == [row[:10] for row in expected]


def test_histories_speak_for_new_users(trained: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("user,item\n-5,0|12|24|6\n-6,3|15|27|9\n1,\n")
    found = lists(trained, tmp_path / "new.csv", "predict.k=5")
    even = [sum(item // 3 % 2 == 0 for item in row) for row in found["items"].to_list()]
    assert even[0] >= 4 and even[1] <= 1
    everything = lists(trained, tmp_path / "new.csv", "predict.k=99", "predict.filter_seen=false", "overwrite=true")
    assert [len(row) for row in everything["items"]] == [40, 40, 40]
    assert len(lists(trained, tmp_path / "new.csv", "predict.k=99", "overwrite=true")["items"][0]) == 36
    with pytest.raises(StageError, match="holds other scores"):
        lists(trained, tmp_path / "new.csv", "predict.k=4")


def test_how_many_users_the_model_does_not_know_is_told(
    trained: tuple[Path, tuple[str, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mixed.csv").write_text("user,item\n1,\n-5,0|12\n-6,\n-7,1\n2,0\n")  # there is no item 1
    with caplog.at_level("INFO"):
        found = lists(trained, tmp_path / "mixed.csv", "predict.k=3")
    assert found["listed_by"].to_list() == ["user", "history", "frequency", "frequency", "user"]
    assert "; 2 known to the model; 2 unknown and without an item that it knows" in caplog.text
    assert "1 unknown to it, listed for by their histories" in caplog.text
    assert found["items"][2].to_list() == found["items"][3].to_list()


def test_what_cannot_be_listed_is_refused(trained: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a file with a column of users"):
        do("predict", trained[0], *trained[1])
    (tmp_path / "other.csv").write_text("person\n1\n")
    with pytest.raises(DataError, match="no column 'user' of users; it has"):
        lists(trained, tmp_path / "other.csv")
    (tmp_path / "none.csv").write_text("user\n")
    with pytest.raises(DataError, match="no rows to score"):
        lists(trained, tmp_path / "none.csv")
    (tmp_path / "spaces.csv").write_text("user,item\n1,2 3\n")
    with pytest.raises(DataError, match=r"column 'item': '2 3' is no .*Between values of a text stands '\|'"):
        lists(trained, tmp_path / "spaces.csv")
    with pytest.raises(ConfigError, match="k=0: must be 1 or more"):
        lists(trained, tmp_path / "other.csv", "predict.k=0")
