"""`FeatureEncoder`: eager = scripted = what ingest wrote, on rows made to differ."""

from pathlib import Path

import polars as pl
import pytest
import torch
import xxhash
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import MISSING_KEY, CategoricalFeature, KeyType, NumericTransform, Schema
from recsys.data.encoder import FeatureEncoder, load_encoder, vocabulary_path
from recsys.data.raw import border_tensors, string_keys
from tests.data.conftest import NUMERIC, small_frame

ADVERSARIAL = {
    "text": ["", None, "ü→🙂", " ", "a ", "a", "A", "unseen", "\x00", "1e3", "nan", "a" * 10_000],
    "number": [2**63 - 1, -1, None, 0, 1, -(2**63), 2**53 + 1, 7, -7, 2, 3, 4],
    "hashed": ["", None, "ü→🙂", " ", "h1", "h1 ", "1", "-1", "9223372036854775807", "x", "y", "z"],
    "tags": ["", None, "|", "a||b", "t1", "t1|t1", "t0|t1|t2|t3|t4", " |t1", "ü|→", "|t1", "t1|", "unseen"],
    "number_like": [None, float("nan"), 0.0, -0.0, 1e-30, -5.5, 1e30, 3.0, -1e30, 2**24 + 1.0, 1e3, 1.0],
}


def adversarial_frame() -> pl.DataFrame:
    columns = {name: values for name, values in ADVERSARIAL.items() if name != "number_like"}
    numbers = {feature.name: ADVERSARIAL["number_like"] for feature in NUMERIC}
    return pl.DataFrame({**columns, **numbers}, schema_overrides={"number": pl.Int64})


def flatten(encoded: tuple[Tensor, list[Tensor], list[Tensor]]) -> list[Tensor]:
    return [encoded[0], *encoded[1], *encoded[2]]


@pytest.mark.parametrize("rows", [0, 1, 12])
def test_scripted_equals_eager_on_adversarial_rows(folder: Path, rows: int) -> None:
    encoder, schema = load_encoder(folder), Manifest.read(folder).schema
    border = border_tensors(adversarial_frame().head(rows), schema)
    eager, scripted = flatten(encoder(border)), flatten(torch.jit.script(encoder)(border))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(eager, scripted, strict=True))
    assert bool(torch.isfinite(eager[0]).all())


def test_scripted_uses_aten_alone(folder: Path) -> None:
    graph = torch.jit.script(load_encoder(folder)).inlined_graph
    assert {node.kind().split("::")[0] for node in graph.nodes()} <= {"aten", "prim"}


def test_encoder_gives_what_ingest_wrote(folder: Path) -> None:
    schema, raw = Manifest.read(folder).schema, small_frame()
    for split in ("train", "validation", "test"):
        written = pl.read_parquet(folder / split / "*.parquet")
        dense, ids, offsets = load_encoder(folder)(border_tensors(raw[written["__row__"].to_list()], schema))
        for i, numeric in enumerate(schema.numeric):
            assert torch.equal(dense[:, i], written[numeric.name].to_torch())
        for feature, values, offset in zip(schema.categorical, ids, offsets, strict=True):
            column = written[feature.name]
            if feature.multi_valued:
                assert values.tolist() == [x for row in column for x in row]
                assert offset.diff().tolist() == column.list.len().to_list()
            else:
                assert values.tolist() == column.to_list()


def test_known_and_unknown_values(folder: Path) -> None:
    encoder, schema = load_encoder(folder), Manifest.read(folder).schema
    frame = adversarial_frame()
    _, ids, offsets = encoder(border_tensors(frame, schema))
    text = dict(zip(frame["text"], ids[0].tolist(), strict=True))
    # Null and empty are one category of their own; spaces and case count.
    assert text[""] == text[None] != 0
    assert len({text[value] for value in ("a", " ", "a ", "ü→🙂", "")}) == 5
    assert text["unseen"] == text["A"] == text["\x00"] == 0
    number = dict(zip(frame["number"], ids[1].tolist(), strict=True))
    assert 0 not in (number[2**63 - 1], number[-1], number[None]) and number[2**53 + 1] == 0
    assert number[-(2**63)] == number[None]
    assert offsets[3].diff().tolist() == [0, 0, 0, 2, 1, 2, 3, 2, 2, 1, 1, 1]


def test_first_values_of_a_long_row_are_kept() -> None:
    schema = Schema(
        label="y",
        categorical=(CategoricalFeature(name="t", key_type=KeyType.INTEGER, multi_valued=True, max_length=2),),
    )
    encoder = FeatureEncoder(schema, {}, {"t": torch.tensor([30, 10, 20])}, {})
    features = {"t": torch.tensor([10, 20, 30, 99, 30, 20, 10]), "t__lengths": torch.tensor([3, 0, 1, 3])}
    dense, ids, offsets = encoder(features)
    assert (ids[0].tolist(), offsets[0].tolist(), dense.shape) == ([2, 3, 0, 1, 3], [0, 2, 2, 3, 5], (4, 0))


def test_infinity_at_the_border_counts_as_missing(folder: Path) -> None:
    encoder, schema = load_encoder(folder), Manifest.read(folder).schema
    border = border_tensors(adversarial_frame(), schema)
    for feature in schema.numeric:
        border[feature.name] = torch.full((12,), float("inf"))
    expected = [float(feature.transform is NumericTransform.MISSING) for feature in schema.numeric]
    assert torch.equal(encoder(border)[0], torch.tensor([expected] * 12))


def test_string_keys_are_xxh64_of_utf8() -> None:
    texts = ["a", "", "ü→🙂", " ", "x" * 100, None]
    digests = [xxhash.xxh64((text or "").encode(), seed=0).intdigest() for text in texts]
    expected = [MISSING_KEY if not t else d - 2**64 * (d >= 2**63) for t, d in zip(texts, digests, strict=True)]
    assert string_keys(pl.Series(texts)).to_list() == expected
    assert string_keys(pl.Series(["a"])).item() == -3292477735350538661  # XXH64("a", 0) = 0xd24ec4f1a98c6e5b


def test_lists_and_separated_text_are_the_same() -> None:
    schema = Schema(label="y", categorical=(CategoricalFeature(name="t", multi_valued=True),))
    lists = pl.DataFrame({"t": [["a", "b"], [], None, ["", None, "c"]]})
    text = pl.DataFrame({"t": ["a|b", "", None, "||c"]})
    first, second = border_tensors(lists, schema), border_tensors(text, schema)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["t__lengths"].tolist() == [2, 0, 0, 1]


def test_integers_and_their_digits_are_the_same_text_key() -> None:
    schema = Schema(label="y", categorical=(CategoricalFeature(name="c"),))
    numbers, text = pl.DataFrame({"c": [5, None, -1]}), pl.DataFrame({"c": ["5", None, "-1"]})
    assert torch.equal(border_tensors(numbers, schema)["c"], border_tensors(text, schema)["c"])


@pytest.mark.parametrize("damage", ["missing", "short", "garbage"])
def test_damaged_vocabulary_is_refused(folder: Path, damage: str) -> None:
    path = vocabulary_path(folder, "text")
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        pl.read_parquet(path).head(1).write_parquet(path)
    else:
        path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"text.parquet.*Run ingest again"):
        load_encoder(folder)
