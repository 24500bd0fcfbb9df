"""Bad input, by table, through the commands: one named error (what, where, why, how to fix), status 1, nothing lost."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import CheckpointError, ConfigError, DataError, RecsysError, StageError
from tests.pipelines.world import MODEL, SMALL, STAGES, command_line, contents, do, finished, make_run

ROWS = 200
TABLE = (
    "dataset.label=y",
    "dataset.numeric=[{name: price}]",
    "dataset.categorical=[{name: user, key_type: integer}, {name: item}]",
)


def good() -> pl.DataFrame:
    rows = range(ROWS)
    price, item = [i / 2 for i in rows], [f"item{i % 7}" for i in rows]
    return pl.DataFrame({"y": [i % 2 for i in rows], "price": price, "user": [i % 20 for i in rows], "item": item})


def late(column: str, value: object) -> pl.DataFrame:
    """Good rows but for one value in row 151."""
    values = good()[column].to_list()
    return good().with_columns(pl.Series(column, [*values[:150], value, *values[151:]], strict=False))


def csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()


def parquet(frame: pl.DataFrame, folder: Path) -> bytes:
    frame.write_parquet(folder / "frame.parquet")
    return (folder / "frame.parquet").read_bytes()


CSV: dict[str, tuple[Callable[[], bytes], str]] = {
    "missing column": (lambda: csv(good().drop("item")), r"raw.csv: column\(s\) \['item'\] of the schema are missing"),
    "wrong type": (
        lambda: csv(late("price", "cheap")),
        r"raw.csv, row 151 .*column 'price': 'cheap' is not a number. Correct it",
    ),
    "infinity": (lambda: csv(late("price", float("inf"))), r"row 151 .*column 'price': 'inf' is infinite .* Clip it"),
    "id of the wrong type": (
        lambda: csv(late("user", "bob")),
        r"row 151 .*column 'user': 'bob' is no signed 64-bit integer",
    ),
    "label outside {0, 1}": (
        lambda: csv(late("y", 2)),
        r"row 151 .*column 'y': '2' is not a label. Labels must be 0 or 1",
    ),
    "no label": (lambda: csv(late("y", None)), r"row 151 .*column 'y': None is not a label"),
    "empty file": (lambda: b"", r"raw.csv: the file holds no rows. Remove it"),
    "cut off": (lambda: csv(good())[:-12], r"raw.csv, line 201: \d value\(s\), expected 4"),
}
PARQUET: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "truncated": (
        lambda folder: parquet(good(), folder)[:-100],
        r"raw.parquet: not a readable Parquet file .*truncated",
    ),
    "empty file": (lambda _: b"", r"raw.parquet: not a readable Parquet file|holds no rows"),
    "no rows": (lambda folder: parquet(good().head(0), folder), r"raw.parquet: the file holds no rows"),
    "infinity": (lambda folder: parquet(late("price", float("-inf")), folder), r"row 151 .*'price': -inf is infinite"),
    "label NaN": (
        lambda folder: parquet(good().with_columns(y=pl.lit(float("nan"))), folder),
        r"raw.parquet, row 1 .*column 'y': nan is not a label",
    ),
}


@dataclass
class World:
    """What a case may prepare: finished results, and a folder for its files."""

    runs: Path
    folder: Path
    overrides: tuple[str, ...] = SMALL


def refused(
    stage: str, world: World, error: type[RecsysError], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage raises this error, the command tells it and ends with status 1, what was finished stays as it was."""
    before, ready = contents(world.runs), finished(world.runs)
    with pytest.raises(error, match=message):
        do(stage, world.runs, *world.overrides)
    capsys.readouterr()
    assert command_line(stage, world.runs, *world.overrides) == 1
    told = capsys.readouterr().err
    assert "error: " in told and "Traceback" not in told
    assert finished(world.runs) == ready
    assert not [path for path in world.runs.rglob("*") if path.suffix in (".partial", ".lock", ".old")]
    after = contents(world.runs)
    assert {path: after.get(path) for path in before} == before


@pytest.fixture
def world(runs: Path, tmp_path: Path) -> World:
    (tmp_path / "raw").mkdir()
    return World(runs, tmp_path / "raw")


@pytest.mark.parametrize("case", CSV)
def test_bad_csv(case: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = CSV[case]
    path = world.folder / "raw.csv"
    path.write_bytes(content())
    world.overrides = (*MODEL, "dataset=csv", f"dataset.files=[{path}]", *TABLE)
    refused("run", world, DataError, message, capsys)


@pytest.mark.parametrize("case", PARQUET)
def test_bad_parquet(case: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = PARQUET[case]
    path = world.folder / "raw.parquet"
    path.write_bytes(content(world.folder))
    world.overrides = (*MODEL, "dataset=parquet", f"dataset.files=[{path}]", *TABLE)
    refused("ingest", world, DataError, message, capsys)


@pytest.mark.parametrize("stage", ["ingest", "predict"])
def test_absent_file(stage: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = world.folder / "absent.csv"
    world.overrides = (*MODEL, "dataset=csv", f"dataset.files=[{path}]", *TABLE, f"predict.input={path}")
    refused(stage, world, DataError, r"absent.csv: (cannot be read|no such file)", capsys)


def test_missing_negative_and_absent_ids_are_data_not_errors(tmp_path: Path) -> None:
    """Keys may be any signed integer; an empty one is the missing key, and NaN is a missing number."""
    path, runs = tmp_path / "raw.csv", tmp_path / "runs"
    frame = good().with_columns(user=pl.when(pl.col("user") == 3).then(None).otherwise(-pl.col("user")))
    frame.with_columns(price=pl.when(pl.col("user") == -2).then(float("nan")).otherwise("price")).write_csv(path)
    overrides = (*MODEL, "dataset=csv", f"dataset.files=[{path}]", *TABLE, f"predict.input={path}")
    for stage in (*STAGES, "predict"):
        run = do(stage, runs, *overrides)
    keys = pl.read_parquet(run.stage("ingest") / "vocabulary" / "user.parquet")["key"]
    assert {-2, -19, 0, -(2**63)} <= set(keys)
    scores = pl.read_parquet(run.stage("predict") / "scores.parquet")
    assert scores.height == ROWS and scores["probability"].is_between(0, 1).all()


def over_budget(world: World) -> None:
    world.overrides = (*SMALL, "name=other", "embedding=full", "embedding.budget_mib=0.001")


def other_plan(world: World) -> None:
    """The checkpoint of another embedding method where this run's should be."""
    other = World(world.runs, world.folder, (*SMALL, "name=other", "embedding=hash", "embedding.compression_ratio=4"))
    do("train", other.runs, *other.overrides)
    checkpoints = world.runs / "small" / "train" / "checkpoints"
    shutil.rmtree(checkpoints)
    (world.runs / "other" / "train" / "checkpoints").rename(checkpoints)
    for stage in ("evaluate", "export"):
        shutil.rmtree(world.runs / "small" / stage)


def damaged_checkpoint(world: World) -> None:
    shutil.rmtree(world.runs / "small" / "evaluate")
    shutil.rmtree(world.runs / "small" / "export")
    part = next((world.runs / "small" / "train" / "checkpoints" / "best").glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:-200])


def no_checkpoint(world: World) -> None:
    damaged_checkpoint(world)
    shutil.rmtree(world.runs / "small" / "train" / "checkpoints" / "best")


STAGE_CASES: dict[str, tuple[str, Callable[[World], None], type[RecsysError], str]] = {
    "over budget": (
        "train",
        over_budget,
        ConfigError,
        r"full needs [\d,]+ bytes, above the budget of 1,048 .*Raise the budget to [\d.]+ MiB or more",
    ),
    "evaluate another plan": (
        "evaluate",
        other_plan,
        CheckpointError,
        r"best holds a checkpoint of embedding plan \w+, but this",
    ),
    "export another plan": (
        "export",
        other_plan,
        CheckpointError,
        r"best holds a checkpoint of embedding plan \w+, but this",
    ),
    "damaged checkpoint": (
        "evaluate",
        damaged_checkpoint,
        CheckpointError,
        r"best: cannot be loaded.*train again or restore it",
    ),
    "damaged, exported": (
        "export",
        damaged_checkpoint,
        CheckpointError,
        r"best: cannot be loaded.*train again or restore it",
    ),
    "no checkpoint": ("evaluate", no_checkpoint, CheckpointError, r"state.json: cannot be read"),
}


@pytest.mark.parametrize("case", STAGE_CASES)
def test_bad_results(case: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    stage, prepare, error, message = STAGE_CASES[case]
    prepare(world)
    refused(stage, world, error, message, capsys)


def rows_of_another_schema(world: World) -> None:
    good().write_csv(world.folder / "rows.csv")
    world.overrides = (*SMALL, f"predict.input={world.folder / 'rows.csv'}")


def bundle_of_another_schema(world: World) -> None:
    """This run's data and another data set's bundle."""
    other = ("dataset.num_categorical=3", "name=other")
    for stage in STAGES:
        do(stage, world.runs, *SMALL, *other)
    world.overrides = (*SMALL, f"predict.bundle={world.runs / 'other' / 'export'}")


def no_bundle(world: World) -> None:
    shutil.rmtree(world.runs / "small" / "export")


def damaged_bundle(world: World) -> None:
    model = world.runs / "small" / "export" / "model.pt"
    model.write_bytes(model.read_bytes()[:-1])


def empty_rows(world: World) -> None:
    rows = pl.read_parquet(make_run(world.runs, *SMALL).stage("ingest") / "raw_sample.parquet")
    rows.head(0).write_parquet(world.folder / "rows.parquet")
    world.overrides = (*SMALL, f"predict.input={world.folder / 'rows.parquet'}")


def infinite_rows(world: World) -> None:
    rows = pl.read_parquet(make_run(world.runs, *SMALL).stage("ingest") / "raw_sample.parquet")
    rows.with_columns(I1=pl.lit(float("inf"))).write_parquet(world.folder / "rows.parquet")
    world.overrides = (*SMALL, f"predict.input={world.folder / 'rows.parquet'}")


PREDICT_CASES: dict[str, tuple[Callable[[World], None], str]] = {
    "rows of another schema": (rows_of_another_schema, r"rows.csv: column\(s\) \['I1', .*\] of the schema are missing"),
    "bundle of another schema": (
        bundle_of_another_schema,
        r"the bundle was exported with schema \w+, the data has schema \w+",
    ),
    "no bundle": (no_bundle, r"small/export/.*: no such file, so this is no bundle. Run the export stage"),
    "damaged bundle": (damaged_bundle, r"model.pt: damaged, .* Copy the bundle again, or export again"),
    "no rows": (empty_rows, r"rows.parquet: (no rows to score|the file holds no rows)"),
    "infinity": (infinite_rows, r"rows.parquet, row 1 .*column 'I1': inf is infinite"),
}


@pytest.mark.parametrize("case", PREDICT_CASES)
def test_bad_prediction(case: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, message = PREDICT_CASES[case]
    prepare(world)
    refused("predict", world, DataError, message, capsys)
    assert not list((world.runs / "small").glob("predict/*")), "neither scores nor half of them"


def test_second_run_in_the_same_folder(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.overrides = (*SMALL, "seed=2")
    refused(
        "train",
        world,
        StageError,
        r"small/train holds another result \(seed is 1 there, 2 here\). Choose another name=",
        capsys,
    )


@pytest.mark.parametrize("stage", ["train", "run"])
def test_training_another_run_is_refused(stage: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be overwritten: `from` makes its train folder this run's."""
    world.overrides = (*SMALL, "name=other", "seed=2", "overwrite=true", "from=small")
    refused(stage, world, ConfigError, r"from=small: .* pipelines.compress", capsys)
