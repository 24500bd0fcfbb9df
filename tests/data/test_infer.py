"""A proposed config says what the columns are, and works as it is written."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import build_config
from recsys.core.manifest import Manifest
from recsys.core.schema import KeyType
from recsys.core.specs import Pooling
from recsys.data.infer import propose
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.joined import SideTable
from recsys.data.look import look
from recsys.data.table import TableDataset

START = datetime(2024, 1, 1, tzinfo=UTC)


def rows(count: int = 400) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": [f"r{i}" for i in range(count)],
            "user_id": [i * 7 % 90 for i in range(count)],
            "word": [f"w{i % 60}" for i in range(count)],
            "price": [None if i % 20 == 3 else i * 1.5 for i in range(count)],
            "slot": [i % 4 for i in range(count)],
            "genres": ["|".join(f"g{i % (k + 3)}" for k in range(1 + i % 3)) for i in range(count)],
            "time": [(START + timedelta(minutes=i)).isoformat() for i in range(count)],
            "constant": ["x"] * count,
            "click": [int(i * i % 7 < 2) for i in range(count)],
        }
    )


WRITE: dict[str, Any] = {
    "raw.csv": lambda frame, path: frame.write_csv(path),
    "raw.tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "raw.parquet": lambda frame, path: frame.write_parquet(path),
    "raw.arrow": lambda frame, path: frame.write_ipc(path, record_batch_size=64),
    "raw.jsonl": lambda frame, path: frame.write_ndjson(path),
}


def proposed(path: Path, **changes: str) -> str:
    return propose(look(path, 100_000), [str(path)], **{"label": "", "name": "mine", **changes})


def proposed_of(frame: pl.DataFrame, path: Path) -> str:
    frame.write_csv(path)
    return proposed(path)


@pytest.mark.parametrize("name", WRITE)
def test_the_proposal_works_as_written(tmp_path: Path, name: str) -> None:
    WRITE[name](rows(), tmp_path / name)
    text = proposed(tmp_path / name)
    dataset = build_config(TableDataset, yaml.safe_load(text), key="dataset")
    assert dataset.label == "click" and dataset.passthrough == ("user_id",)
    assert [feature.name for feature in dataset.numeric] == ["price"]
    found = {feature.name: feature for feature in dataset.categorical}
    assert list(found) == ["user_id", "word", "slot", "genres", "time_hour", "time_weekday"]
    assert found["user_id"].key_type is KeyType.INTEGER and found["genres"].multi_valued
    assert dataset.split.column == "time"
    assert all("#" in line for line in text.splitlines() if line.startswith("  - "))
    assert '#   "row": another value on every row' in text and '#   "constant": one value' in text
    ingest(dataset, tmp_path / "out", options=IngestOptions())
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.splits["train"].num_rows == 320 and manifest.categorical["time_hour"].num_keys > 3


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    encoded = []
    for name, write in WRITE.items():
        write(rows(), tmp_path / name)
        values = yaml.safe_load(proposed(tmp_path / "raw.csv"))
        form = yaml.safe_load(proposed(tmp_path / name))
        values |= {key: form[key] for key in ("kind", "files", "separator", "columns", "quoted")}
        ingest(build_config(TableDataset, values, key="dataset"), tmp_path / f"out {name}", options=IngestOptions())
        encoded.append(
            pl.read_parquet(tmp_path / f"out {name}" / "train" / "*.parquet").drop("user_id", "__raw__user_id")
        )
    assert all(frame.equals(encoded[0]) for frame in encoded[1:])


def test_a_weight_is_told_by_its_name_and_its_values(tmp_path: Path) -> None:
    weights: dict[str, list[Any]] = {"weight": [0.0, 0.5, 2.0], "Sample_Weight": [1, 2, 3]}
    others: dict[str, list[Any]] = {
        "weight": [-1.0, 0.5, 2.0],
        "sample_weight": [1.0, None, 2.0],
        "body_weight": [60.0, 61.5, 80.0],
    }
    for names, is_weight in ((weights, True), (others, False)):
        for name, values in names.items():
            frame = pl.DataFrame({"label": [0, 1, 1] * 40, "x": [0.5, 1.5, 2.5] * 40, name: values * 40})
            frame.write_parquet(tmp_path / "rows.parquet")
            text = propose(look(tmp_path / "rows.parquet", 1000), ["rows.parquet"], label="", name="rows")
            found = yaml.safe_load(text)
            assert found.get("weight", "") == (name if is_weight else "")
            assert (name in [entry["name"] for entry in found["numeric"]]) is not is_weight


def test_columns_called_like_labels_are_no_features_beside_one(tmp_path: Path) -> None:
    frame = rows().with_columns(purchase=pl.col("click") * (pl.int_range(pl.len()) % 3 == 0).cast(pl.Int64))
    text = proposed_of(frame, tmp_path / "raw.csv")
    assert 'other_labels: ["purchase"]   # called like labels' in text and "name: purchase" not in text
    found = build_config(TableDataset, yaml.safe_load(text) | {"_target_": "recsys.data.table.TableDataset"}, key="")
    assert found.schema().labels == ("click", "purchase")
    ingest(found, tmp_path / "out", options=IngestOptions())
    assert "other_labels" not in proposed_of(frame.with_columns(purchase=pl.lit(0)), tmp_path / "raw.csv")
    unknown = frame.with_columns(purchase=pl.when(pl.col("click") == 1).then("purchase"))
    text = proposed_of(unknown, tmp_path / "raw.csv")
    assert '#   "purchase": called like a label, but it is none here' in text and "other_labels" not in text
    text = propose(look(tmp_path / "raw.csv", 400), ["raw.csv"], label="slot", name="n")
    assert '#   "click": called like a label' in text


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39])
def test_infinite_floats_are_numbers_that_ingest_refuses(tmp_path: Path, value: float) -> None:
    x = [value if i == 3 else i / 7 for i in range(120)]
    y = [math.nan if i % 5 == 0 else i / 3 for i in range(120)]
    pl.DataFrame({"label": [0, 1] * 60, "x": x, "y": y}).write_parquet(tmp_path / "raw.parquet")
    text = proposed(tmp_path / "raw.parquet")
    found = yaml.safe_load(text)
    assert [entry["name"] for entry in found["numeric"]] == ["x", "y"] and found["categorical"] == []
    assert "120 values, 0.0% missing; 1 infinite (as float32): ingest refuses them with file" in text
    assert "96 values, 20.0% missing\n" in text
    dataset = build_config(TableDataset, found, key="dataset")
    with pytest.raises(DataError, match=r"raw.parquet, row 4 .*column 'x': .* is infinite"):
        ingest(dataset, tmp_path / "out", options=IngestOptions())
    assert ingest(dataset, tmp_path / "kept", options=IngestOptions(max_rejected=0.1)).num_rejected == 1


WORDS = [[f"w{(i + j) % 9}" for j in range(i % 4)] for i in range(120)]
WEIGHTS = [[j / 3 + i for j in range(i % 4)] for i in range(120)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_numbers_beside_a_list_are_its_weights(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"label": [0, 1] * 60, "words": WORDS, "word_weights": WEIGHTS})
    if ending == "csv":
        lists = pl.col("words", "word_weights").cast(pl.List(pl.String)).list.join("|")
        frame = frame.with_columns(lists)
    WRITE[f"raw.{ending}"](frame, tmp_path / f"raw.{ending}")
    text = proposed(tmp_path / f"raw.{ending}")
    assert "'word_weights' has one number for each" in text and "Left out" not in text
    dataset = build_config(TableDataset, yaml.safe_load(text), key="dataset")
    assert [(f.name, f.pooling, f.weights) for f in dataset.categorical] == [
        ("words", Pooling.WEIGHTED, "word_weights")
    ]
    ingest(dataset, tmp_path / "out", options=IngestOptions())


@pytest.mark.parametrize(
    ("name", "weights", "fits"),
    [
        ("words_score", WEIGHTS, True),
        ("weights", WEIGHTS, True),
        ("prices", WEIGHTS, False),  # numbers of something else
        ("item_weights", WEIGHTS, False),  # of something else
        ("word_weights", [*WEIGHTS[:-1], [0.5]], False),  # of another length on one row
        ("word_weights", [*WEIGHTS[:-1], [0.5, math.inf, 1.0]], False),
        ("word_weights", [*WEIGHTS[:-1], [0.5, None, 1.0]], False),
    ],
)
def test_other_numbers_are_no_weights(tmp_path: Path, name: str, weights: list[list[float]], fits: bool) -> None:
    pl.DataFrame({"label": [0, 1] * 60, "words": WORDS, name: weights}).write_parquet(tmp_path / "raw.parquet")
    (found,) = yaml.safe_load(proposed(tmp_path / "raw.parquet"))["categorical"]
    assert found.get("weights", "") == (name if fits else "")


def test_keys_and_lists_that_come_late_are_seen(tmp_path: Path) -> None:
    early, late = {"label": 0, "x": "a"}, {"label": 1, "x": "b", "tags": ["p", "q"], "y": "c"}
    lines = [json.dumps(early if row < 1500 else late | {"y": f"c{row % 3}"}) for row in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    found = yaml.safe_load(proposed(tmp_path / "rows.jsonl"))
    by_name = {entry["name"]: entry for entry in found["categorical"]}
    assert list(by_name) == ["x", "tags", "y"] and by_name["tags"]["multi_valued"]


def test_texts_with_leading_zeros_are_names(tmp_path: Path) -> None:
    ids = [f"{row % 8:05}" for row in range(80)]
    frame = pl.DataFrame(
        {"label": [0, 1] * 40, "code": ids, "hash": [f"{i}e{i[-1]}" for i in ids], "x": [0.5, 10] * 40}
    )
    frame.write_csv(tmp_path / "rows.csv")
    found = yaml.safe_load(proposed(tmp_path / "rows.csv"))
    assert [entry["name"] for entry in found["categorical"] if "key_type" not in entry] == ["code", "hash"]
    assert [entry["name"] for entry in found["numeric"]] == ["x"]


def test_fractions_of_seconds_are_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"label": [0, 1] * 40, "time": [1_700_000_000 + 7.25 * row for row in range(80)]})
    frame.write_csv(tmp_path / "rows.csv")
    found = yaml.safe_load(proposed(tmp_path / "rows.csv"))
    assert [entry["name"] for entry in found["numeric"]] == ["time"]
    assert found["timestamps"] == [] and found["split"]["method"] == "shuffle"


def test_days_have_no_hour(tmp_path: Path) -> None:
    days = [(START + timedelta(days=i)).date().isoformat() for i in range(400)]
    text = proposed_of(rows().with_columns(time=pl.Series(days)), tmp_path / "raw.csv")
    assert "time_weekday" in text and "time_hour" not in text


def test_the_history_that_it_shows_works(tmp_path: Path) -> None:
    rows().rename({"word": "item_id"}).write_csv(tmp_path / "raw.csv")
    text = proposed(tmp_path / "raw.csv")
    assert "# history:" in text and "# history:" not in proposed_of(rows(), tmp_path / "other.csv")
    shown = text.replace("# history:", "history:")
    feature = next(line for line in text.splitlines() if line.startswith("#   - "))
    shown = shown.replace(feature, "").replace("categorical:\n", f"categorical:\n  {feature[4:]}\n")
    dataset = build_config(TableDataset, yaml.safe_load(shown), key="dataset")
    manifest = ingest(dataset, tmp_path / "data", options=IngestOptions())
    lengths = pl.read_parquet(tmp_path / "data" / "test" / "*.parquet")["hist_item_id"].list.len().to_list()
    assert max(lengths) >= 1 and manifest.schema.vocabularies["item_id"][1].name == "hist_item_id"


def test_a_file_without_header(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("".join(f"{i % 2};{i % 5}.5;u{i % 9}\n" for i in range(200)))
    values = yaml.safe_load(proposed(tmp_path / "raw.txt"))
    assert (values["separator"], values["columns"]) == (";", ["column_1", "column_2", "column_3"])
    assert values["label"] == "column_1"


def test_what_cannot_be_proposed(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    rows().drop("click").write_csv(path)
    with pytest.raises(ConfigError, match=r"infer.label='': columns of 0 and 1 are \[\]"):
        proposed(path)
    with pytest.raises(ConfigError, match=r"infer.label='absent': no such column, or it does not hold a number"):
        proposed(path, label="absent")
    path.write_text("label,price\n" + "yes,1\nno,2\n" * 9)
    with pytest.raises(ConfigError, match="column 'label' is called like a label, but does not hold 0 or 1"):
        proposed(path)
    path.write_text("")
    with pytest.raises(DataError, match=r"raw.csv: the file holds no rows"):
        proposed(path)
    with pytest.raises(DataError, match=r"absent.csv: no such file"):
        proposed(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=rf"infer.files: {tmp_path}: is a folder"):
        proposed(tmp_path)
    (tmp_path / "raw.jsonl").write_text(json.dumps({"a": 1}) + "\n{\n")
    with pytest.raises(DataError, match=r"raw.jsonl: a line is not JSON"):
        proposed(tmp_path / "raw.jsonl")


def test_a_table_without_features_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("label,same\n" + "0,x\n1,x\n" * 40)
    with pytest.raises(ConfigError, match="no column but the label 'label' can be a feature: 'same': one value"):
        proposed(tmp_path / "rows.csv")


def test_whole_numbers_beyond_64_bits_that_name_rows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,hour,click\n" + "".join(f"{10**19 + i},{i % 7},{i % 2}\n" for i in range(100)))
    assert '"id": another value on every row' in propose(look(path, 100), [str(path)], label="", name="x")


def test_side_tables_are_joined_proposed_and_carried_into_the_yaml(tmp_path: Path) -> None:
    items = pl.DataFrame({"word": [f"w{i}" for i in range(60)], "weight_kg": [i * 0.37 + 2 for i in range(60)]})
    items.write_parquet(tmp_path / "items.parquet")
    rows().write_csv(tmp_path / "raw.csv")
    side = (SideTable(files=(str(tmp_path / "items.parquet"),), key="word", columns=("weight_kg",)),)
    text = propose(look(tmp_path / "raw.csv", 100_000, side), [str(tmp_path / "raw.csv")], label="", name="mine")
    dataset = build_config(TableDataset, yaml.safe_load(text), key="dataset")
    assert dataset.side == side
    assert "weight_kg" in [feature.name for feature in dataset.numeric]
    ingest(dataset, tmp_path / "out", options=IngestOptions())
    assert Manifest.read(tmp_path / "out").numeric["weight_kg"].num_missing == 0
    missing = (SideTable(files=(str(tmp_path / "none.parquet"),), key="word", columns=("weight_kg",)),)
    with pytest.raises(DataError, match=r"none.parquet: no such file .dataset.side"):
        look(tmp_path / "raw.csv", 100, missing)


@pytest.mark.parametrize("name", ["buy", "Bought", "is_purchase", "liked"])
def test_what_follows_a_click_is_no_feature_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    later = (pl.col("click") * (pl.int_range(pl.len()) % 3 == 0).cast(pl.Int64)).alias(name)
    text = proposed_of(rows().with_columns(later), tmp_path / "raw.csv")
    assert 'label: "click"' in text and f'other_labels: ["{name}"]' in text and f"name: {name}" not in text
