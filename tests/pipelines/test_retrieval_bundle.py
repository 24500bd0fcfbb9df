"""A retrieval bundle: index, manifest, card whose code runs, keys of texts."""

import json
import re
from pathlib import Path

import faiss
import polars as pl
import pytest
import torch
import xxhash

from recsys.core.errors import DataError
from recsys.core.specs import RowType
from recsys.export.manifest import BundleManifest
from recsys.export.retrieval_manifest import RetrievalManifest
from recsys.export.script import load_scripted
from tests.pipelines.test_retrieval import ENCODER, SMALL
from tests.pipelines.world import STAGES, do
from tests.retrieval.world import pairs

TEXT = ("dataset.train.kind=text", "dataset.train.separator=','", "dataset.train.key_type=string")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of pairs of texts, exported with a graph of items. Do not write into it."""
    folder = tmp_path_factory.mktemp("bundle")
    found = [(f"user{user}", f"item {item}") for user, item in pairs()]
    for name, rows in (("train", found[1::2] + found[::4]), ("test", found[2::4])):
        (folder / f"{name}.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    given = (*SMALL, *ENCODER, *TEXT, *(option.replace("train", "test") for option in TEXT))
    given += tuple(f"dataset.{name}.files=[{folder}/{name}.csv]" for name in ("train", "test"))
    given += ("export.index.kind=hnsw", "export.index.search_effort=40")
    for stage in STAGES:
        run = do(stage, folder / "runs", *given)
    return run.stage("export")


def key(text: str) -> int:
    unsigned = xxhash.xxh64_intdigest(text.encode())
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def test_the_index_lists_what_the_model_does_before_anything_is_left_out(bundle: Path) -> None:
    model, items = load_scripted(bundle / "model.pt"), pl.read_parquet(bundle / "items.parquet")
    features = {"user": torch.tensor([key("user3"), key("somebody new")])}
    features |= {"item": torch.tensor([key("item 4"), key("item 8")]), "item__lengths": torch.tensor([0, 2])}
    exact, scores = model(features, 5, False)
    found, ids = faiss.read_index(str(bundle / "items.faiss")).search(model.query(features).numpy(), 5)
    torch.testing.assert_close(torch.from_numpy(found), scores, rtol=1e-5, atol=1e-6)
    by_id = dict(items.select("id", "key").iter_rows())
    assert [[by_id[i] for i in row] for row in ids.tolist()] == exact.tolist()
    vectors = torch.tensor(items["vector"].to_list())
    torch.testing.assert_close(torch.topk(model.query(features) @ vectors.t(), 5).values, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"item": torch.tensor([1])}, "input 'user' is missing"),
        ({"user": torch.tensor([1.0])}, "input 'user' has dtype"),
        ({"user": torch.tensor(1)}, r"input 'user' has shape \[\]: it must have one dimension"),
        ({"user": torch.tensor([[1]])}, "must have one dimension"),
        ({"user": torch.tensor([1]), "item": torch.tensor([1])}, "input 'item__lengths' is missing"),
        ({"user": torch.tensor([1]), "item__lengths": torch.tensor([0])}, "input 'item' is missing"),
        (
            {"user": torch.tensor([1]), "item": torch.tensor([1, 2]), "item__lengths": torch.tensor([1])},
            "add up to the 2 values of 'item'",
        ),
        (
            {"user": torch.tensor([1, 2]), "item": torch.tensor([1, 2]), "item__lengths": torch.tensor([3, -1])},
            "counts >= 0",
        ),
        (
            {"user": torch.tensor([1, 2]), "item": torch.tensor([1, 2]), "item__lengths": torch.tensor([2])},
            "'item__lengths' has 1 rows, but 'user' has 2",
        ),
    ],
)
def test_what_is_no_request_is_named(bundle: Path, wrong: dict[str, torch.Tensor], message: str) -> None:
    model = load_scripted(bundle / "model.pt")
    for ask in (model, model.query):
        with pytest.raises(torch.jit.Error, match=message):
            ask(wrong)
    with pytest.raises(torch.jit.Error, match="k=0: a list has 1 place or more"):
        model({"user": torch.tensor([1])}, 0)


def test_triton_serves_lists_of_the_default_length(bundle: Path) -> None:
    text = (bundle / "config.pbtxt").read_text()
    for name in ("user", "item", "item__lengths"):
        assert f'{{ name: "{name}" data_type: TYPE_INT64 dims: [ -1 ] }}' in text
    items, _ = load_scripted(bundle / "model.pt")({"user": torch.tensor([key("user3")])})
    assert f'{{ name: "items__0" data_type: TYPE_INT64 dims: [ -1, {items.shape[1]} ] }}' in text
    assert f'{{ name: "scores__1" data_type: TYPE_FP32 dims: [ -1, {items.shape[1]} ] }}' in text


def test_items_of_texts_are_named(bundle: Path) -> None:
    items = pl.read_parquet(bundle / "items.parquet")
    assert items["value"].null_count() == 0
    assert all(key(text) == known for text, known in items.select("value", "key").iter_rows())


def test_the_manifest_says_what_was_measured(bundle: Path) -> None:
    manifest = RetrievalManifest.read(bundle)
    assert (manifest.user.name, manifest.item.name) == ("user", "item")
    assert manifest.index is not None and manifest.index.recall > 0.95 and manifest.index.kind.value == "hnsw"
    exact, narrow = manifest.models["float32"], manifest.models["int8"]
    assert exact.parity.max_score_error < 1e-5 and exact.parity.num_lists == 40 and exact.parity.kept == 1
    assert narrow.parity.kept > 0.95 and 2 * narrow.vector_bytes == exact.vector_bytes, "rows of 8: 32 bytes or 8 + 8"
    assert manifest.num_users == 60 and manifest.num_items == 40
    assert manifest.model_path(bundle, RowType.FLOAT32) == bundle / "model.pt"
    with pytest.raises(DataError, match=r"no int4 model; there are \['float32', 'int8'\]"):
        manifest.model_path(bundle, RowType.INT4)
    assert json.loads((bundle / "manifest.json").read_text())["lineage"]["run"] == "small"


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.* is deprecated")
def test_the_card_runs_as_it_stands(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "hnsw by inner product, links 32" in card and "## Origin" in card
    codes = re.findall(r"```python\n(.*?)\n```", card, re.S)
    assert len(codes) == 2
    scope: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bundle)
        for code in codes:
            exec(code, scope)
    assert capsys.readouterr().out.count("[") >= 3


def test_bundles_of_another_kind_are_told_apart(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"models": {}}))
    with pytest.raises(DataError, match="scores rows"):
        RetrievalManifest.read(tmp_path)
    with pytest.raises(DataError, match="not readable"):
        RetrievalManifest.read(tmp_path / "absent")
    with pytest.raises(DataError, match="lists items"):
        BundleManifest.read(bundle)
    other = tmp_path / "bundle"
    other.mkdir()
    (other / "model.pt").write_bytes(b"something else")
    with pytest.raises(DataError, match="not the file that was exported"):
        RetrievalManifest.read(bundle).model_path(other, RowType.FLOAT32)
    old = {**json.loads((bundle / "manifest.json").read_text()), "format_version": 1}
    (other / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match=r"of another version of this project. Export again"):
        RetrievalManifest.read(other)
