"""A retrieval run from files to lists: every stage, any embedding method, any loss, resumption, the exported file."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from pipelines.entry import CONFIG_FOLDER
from recsys.core.errors import ConfigError, DataError, ParityError
from recsys.export.script import load_scripted
from tests.pipelines.world import STAGES, do
from tests.retrieval.world import write_files

SMALL = (
    "experiment=graph/gowalla_bpr",
    "name=small",
    "retrieval.top_k=[5,10]",
    "retrieval.monitor_k=5",
    "train.epochs=3",
    "train.batch_size=64",
    "train.optimizer.table_learning_rate=0.05",
    "train.run_on.num_threads=1",
    "export.num_golden_rows=20",
)

ENCODER = ("retrieval.model.embedding_dim=8", "retrieval.model.num_layers=2")
"""Options of models that are trained; the others have none of them."""

MANY_NEGATIVES = ("retrieval.sampler.num_negatives=8", "retrieval.loss.margin=0.4", "retrieval.loss.negative_weight=4")
WEAK_CONTRAST = "retrieval.model.contrast_weight=0.01"
NEIGHBORS = ("retrieval.loss.negative_weight=1", "retrieval.model.neighbor_weight=0.1")


def files(folder: Path) -> tuple[str, ...]:
    train, test = write_files(folder)
    return (f"dataset.train.files=[{train}]", f"dataset.test.files=[{test}]")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A folder of results with all stages done, and the overrides. Do not write into it."""
    folder = tmp_path_factory.mktemp("retrieval")
    given = (*SMALL, *ENCODER, *files(folder))
    for stage in STAGES:
        do(stage, folder / "runs", *given)
    return folder / "runs", given


def test_a_run_learns_what_is_planted(done: tuple[Path, tuple[str, ...]]) -> None:
    metrics = json.loads((done[0] / "small/evaluate/metrics.json").read_text())
    assert metrics["num_users"] > 50
    assert metrics["recall_at_10"] > 0.45  # chance has some 10 of 31 items
    assert metrics["recall_at_10.low"] < metrics["recall_at_10"] < metrics["recall_at_10.high"]
    assert metrics["ndcg_at_5"] < metrics["hit_at_5"] and 0 < metrics["coverage_at_10"] <= 1
    page = (done[0] / "small/evaluate/report.html").read_text()
    assert "Recall@10" in page and "http:" not in page and "https:" not in page
    assert "| Recall@10 |" in (done[0] / "small/evaluate/report.md").read_text()
    history = json.loads((done[0] / "small/train/history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_how_many_users_are_ranked_for_at_once_makes_no_other_result(done: tuple[Path, tuple[str, ...]]) -> None:
    runs, given = done
    record = (runs / "small/evaluate/stage.json").read_text()
    do("evaluate", runs, *given, "retrieval.users_at_once=3")
    assert (runs / "small/evaluate/stage.json").read_text() == record


def test_the_exported_file_lists_raw_keys_that_users_have_not_met(done: tuple[Path, tuple[str, ...]]) -> None:
    folder = done[0] / "small/export"
    model = load_scripted(folder / "model.pt")
    lists = pl.read_parquet(done[0] / "small/evaluate/lists.parquet").sort("user")
    keys = pl.read_parquet(folder / "items.parquet")
    users = pl.read_parquet(next((done[0] / "data").iterdir()) / "vocabulary/user.parquet")["key"].to_torch()
    asked = users[torch.from_numpy(lists["user"].to_numpy().copy()) - 1]
    items, scores = model({"user": asked}, 10)
    by_id = torch.cat([torch.zeros(1, dtype=torch.int64), keys["key"].to_torch()])
    assert torch.equal(items, by_id[torch.tensor(lists["items"].to_list())])
    assert (scores.diff(dim=1) <= 0).all()
    some = {"user": asked[:1], "item": items[0, :3], "item__lengths": torch.tensor([3])}
    assert not set(model(some, 10)[0][0].tolist()) & set(items[0, :3].tolist()), "what is given counts as met"
    assert set(model(some, 40, False)[0][0].tolist()) >= set(items[0, :3].tolist())


def test_the_card_tells_embeddings_from_what_the_file_holds(done: tuple[Path, tuple[str, ...]]) -> None:
    folder = done[0] / "small/export"
    card = " ".join((folder / "MODEL_CARD.md").read_text().split())
    took = json.loads((folder / "manifest.json").read_text())["plan_bytes"]
    assert f"vectors were made of take {took:,} bytes as their method stores them; the files hold" in card
    assert "and training count of every item, and its vector." in card
    assert "key -9223372036854775808 where there is nothing to list" in card


def test_the_card_tells_what_evaluation_measured(done: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    metrics = json.loads((done[0] / "small/evaluate/metrics.json").read_text())
    card = " ".join((done[0] / "small/export/MODEL_CARD.md").read_text().split())
    quality = json.loads((done[0] / "small/export/manifest.json").read_text())["quality"]
    assert quality["metrics"]["recall_at_5"] == metrics["recall_at_5"] and quality["num_users"] == metrics["num_users"]
    low, high = metrics["ndcg_at_10.low"], metrics["ndcg_at_10.high"]
    assert f"| NDCG@10 | {metrics['ndcg_at_10']:.4f} | {low:.4f} to {high:.4f} |" in card
    assert f"the {metrics['num_users']} users of the test split" in card
    assert "The epoch was selected on validation." in card
    shutil.copytree(done[0], tmp_path / "runs")
    for stage in ("evaluate", "export"):
        shutil.rmtree(tmp_path / "runs/small" / stage)
    do("export", tmp_path / "runs", *done[1])
    assert "Not measured: this was exported before" in (tmp_path / "runs/small/export/MODEL_CARD.md").read_text()


def test_a_new_user_is_ranked_for_by_his_history(done: tuple[Path, tuple[str, ...]]) -> None:
    model = load_scripted(done[0] / "small/export/model.pt")
    request = {
        "user": torch.tensor([-5, -5]),
        "item": torch.tensor([0, 12, 24, 6, 3, 15, 27, 9]),  # even items, odd items, times 3
        "item__lengths": torch.tensor([4, 4]),
    }
    items, _ = model(request, 5)
    even, odd = ((items // 3) % 2 == 0).sum(1).tolist()
    assert even >= 4 and odd <= 1


@pytest.mark.parametrize(
    "changed",
    [
        ("retrieval/model=mf",),
        ("retrieval/loss=in_batch_softmax", "retrieval.similarity=cosine", "retrieval/sampler=popularity"),
        ("retrieval/loss=sampled_softmax", "retrieval.sampler.num_negatives=4", "retrieval/sampler=popularity"),
        ("retrieval.model.layer_weights=learned", "retrieval.model.storage=bfloat16", "retrieval.refit=true"),
        ("embedding=unified", "embedding.compression_ratio=2"),
        ("embedding=quotient_remainder", "embedding.compression_ratio=2", "train.optimizer.table=rowwise_adagrad"),
        ("embedding=int8",),
        ("retrieval/model=item_cf", "retrieval.model.num_neighbors=10"),
        ("retrieval/model=ease", "retrieval.model.regularizer=5"),
        ("retrieval/model=gf_cf", "retrieval.model.num_vectors=4"),
        ("retrieval/model=bspm", "retrieval.model.num_vectors=4"),
    ],
    ids=lambda changed: "+".join(text.rpartition("=")[2] for text in changed),
)
def test_every_choice_goes_from_files_to_lists(
    changed: tuple[str, ...], done: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    do_stages(STAGES, changed, done, runs)
    assert (runs / "changed/export/manifest.json").is_file()


def test_the_options_of_few_epochs_learn_and_tell_apart_what_was_selected_on_test(tmp_path: Path) -> None:
    given = ("experiment=graph/gowalla", *SMALL[1:], *ENCODER, *files(tmp_path), "retrieval.watch_test=true")
    for stage in ("ingest", "train", "evaluate"):
        do(stage, tmp_path / "runs", *given)
    trained, tested = (
        json.loads((tmp_path / f"runs/small/{stage}/metrics.json").read_text()) for stage in ("train", "evaluate")
    )
    assert tested["recall_at_10"] > 0.45
    # The served model is that of the last epoch, which cannot be better than the best one.
    assert 1 <= trained["selected_on_test.epoch"] <= trained["train.best_epoch"]
    assert trained["selected_on_test.recall_at_5"] >= tested["recall_at_5"] - 1e-6
    assert "best epoch by test" in (tmp_path / "runs/small/evaluate/report.md").read_text()


@pytest.mark.parametrize(
    "changed",
    [
        ("retrieval/model=ngcf", "retrieval/sampler=hard"),
        ("retrieval/model=simplex", *MANY_NEGATIVES),
        ("retrieval/model=mf", "retrieval/loss=ccl", *MANY_NEGATIVES, "train.epochs=6"),
        (
            "retrieval/model=ultra_gcn",
            "retrieval.sampler.num_negatives=4",
            *NEIGHBORS,
        ),
        ("retrieval/model=simgcl", "retrieval/sampler=hard", "retrieval.sampler.num_hardest=2", WEAK_CONTRAST),
        ("retrieval/model=xsimgcl", "retrieval.model.num_layers=2", WEAK_CONTRAST),
        ("retrieval/model=lightgcn_sampled", "retrieval.model.fan_out=3"),
        (
            "retrieval/model=lightgcn_sampled",
            "retrieval.model.fan_out=3",
            "embedding=unified",
            "embedding.compression_ratio=2",
        ),
        ("retrieval/loss=direct_au", "retrieval.loss.gamma=0.3"),
        ("retrieval/model=fast_rp", "retrieval.model.embedding_dim=256"),
        ("retrieval/start=fast_rp", "retrieval.start.embedding_dim=8"),
    ],
    ids=lambda changed: "+".join(text.rpartition("=")[2] for text in changed),
)
def test_every_model_learns_what_is_planted(
    changed: tuple[str, ...], done: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    do_stages(STAGES[:-1], changed, done, tmp_path / "runs")  # they are all exported alike, as dot products


def do_stages(
    stages: tuple[str, ...], changed: tuple[str, ...], done: tuple[Path, tuple[str, ...]], runs: Path
) -> None:
    shutil.copytree(done[0] / "data", runs / "data")
    model = changed[0].removeprefix("retrieval/model=") if changed[0].startswith("retrieval/model=") else "lightgcn"
    known = (Path(CONFIG_FOLDER) / "retrieval" / "model" / f"{model}.yaml").read_text()
    given = [o for o in done[1] if o not in ENCODER or re.search(rf"^ *{o.split('=')[0].split('.')[-1]}:", known, re.M)]
    for stage in stages:
        do(stage, runs, *given, *changed, "name=changed")
    assert json.loads((runs / "changed/evaluate/metrics.json").read_text())["recall_at_10"] > 0.36


def test_a_method_that_follows_all_look_ups_is_refused_where_a_part_is_made(
    done: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    shutil.copytree(done[0] / "data", tmp_path / "runs/data")
    changed = ("retrieval/model=lightgcn_sampled", "embedding=cafe", "embedding.compression_ratio=2", "name=changed")
    with pytest.raises(ConfigError, match="lightgcn_sampled looks up a part of the nodes"):
        do("train", tmp_path / "runs", *done[1], *changed)


def test_an_empty_test_is_refused(tmp_path: Path) -> None:
    given = files(tmp_path)
    (tmp_path / "test.txt").write_text("")
    with pytest.raises(DataError, match="test split is empty"):
        do("ingest", tmp_path / "runs", *SMALL, *given)


def test_a_bundle_of_users_who_met_all_has_empty_lists(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2\n1 1 2\n")
    (tmp_path / "test.txt").write_text("0 9\n")
    given = (f"dataset.train.files=[{tmp_path}/train.txt]", f"dataset.test.files=[{tmp_path}/test.txt]")
    options = ("dataset.validation=0", "retrieval/loss=in_batch_softmax", "retrieval.model.num_layers=1")
    for stage in STAGES:
        do(stage, tmp_path / "runs", *SMALL, *given, *options)
    items, scores = load_scripted(tmp_path / "runs/small/export/model.pt")({"user": torch.tensor([0, 1])}, 3)
    assert (scores == -torch.inf).all() and (items == -(2**63)).all()


def test_lists_that_hold_every_item_choose_no_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = (*SMALL, *ENCODER, *files(tmp_path))
    do("ingest", tmp_path / "runs", *given)
    with pytest.raises(ConfigError, match=r"retrieval.monitor_k=40 of 40 items: .* tells no epoch from another"):
        do("train", tmp_path / "runs", *given, "retrieval.monitor_k=40")
    for stage in ("train", "evaluate"):
        do(stage, tmp_path / "runs", *given, "retrieval.top_k=[5,40]")
    assert "retrieval.top_k=[5, 40] of 40 items: lists that hold every item" in caplog.text


@pytest.mark.parametrize("wrong", ["other items", "no numbers"])
def test_a_file_that_lists_something_else_is_no_bundle(
    wrong: str, done: tuple[Path, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores alone do not tell: those of every place may be right, and the items another's."""

    class Wrong:
        def __init__(self, model: torch.jit.ScriptModule) -> None:
            self.model = model

        def __call__(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            items, scores = self.model(features)
            return (items.flip(1), scores) if wrong == "other items" else (items, scores * torch.nan)

    shutil.copytree(done[0], tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/small/export")
    monkeypatch.setattr("pipelines.retrieval_export.load_scripted", lambda path: Wrong(load_scripted(path)))
    with pytest.raises(ParityError, match="Do not serve it"):
        do("export", tmp_path / "runs", *done[1])
    assert not list((tmp_path / "runs/small").glob("export*"))


def test_an_index_that_cannot_be_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ivf_pq of 40 items: codes are learned from 256 at least"):
        do("run", tmp_path / "runs", *SMALL, *ENCODER, *files(tmp_path), "export.index.kind=ivf_pq")
    assert not (tmp_path / "runs/small").exists()


def test_vectors_too_coarse_are_no_bundle(done: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    shutil.copytree(done[0], tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/small/export")
    coarse = (*done[1], "export.row_types=[FLOAT32,INT2]", "export.min_kept=1")
    with pytest.raises(ParityError, match=r"model_int2.pt: only 0\.\d+ of .* 20 best, below export.min_kept=1"):
        do("export", tmp_path / "runs", *coarse)
    assert not list((tmp_path / "runs/small").glob("export*"))
