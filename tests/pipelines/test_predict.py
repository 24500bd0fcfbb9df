"""Scores of raw rows by the exported file are those of evaluate, whatever kind of file the rows come in."""

from pathlib import Path

import polars as pl
import pytest

from pipelines.config import Run
from recsys.core.errors import StageError
from recsys.core.specs import RowType
from tests.pipelines.world import MODEL, SMALL, STAGES, do, make_run

ROWS = 1200
KINDS = ("csv", "tsv", "parquet", "arrow", "jsonl")
COLUMNS = (
    "dataset.label=y",
    "dataset.numeric=[{name: price}, {name: no_price, transform: missing, of: [price]}]",
    "dataset.timestamps=[{name: time, form: seconds}]",
    "dataset.categorical=[{name: user, key_type: integer}, {name: item, min_count: 2}, {name: url, encoding: hash}, "
    "{name: tags, multi_valued: true, max_length: 3, pooling: mean}, "
    "{name: hour, derive: hour, of: [time]}, {name: price_range, derive: quantile, of: [price], num_buckets: 4}, "
    "{name: user_x_item, derive: cross, of: [user, item], min_count: 2}]",
    "dataset.passthrough=[item]",
    "embedding=hash",
    "embedding.compression_ratio=2",
    "evaluate.slices=[item]",
)


def raw() -> pl.DataFrame:
    """Skewed ids, ids that occur once (so that test rows hold unseen ones), missing values, 0 to 4 tags."""
    rows = range(ROWS)
    return pl.DataFrame(
        {
            "tags": ["|".join(f"t{(i * 7 + k) % 11}" for k in range(i % 5)) for i in rows],
            "y": [int((i * i + i // 3) % 7 < 3) for i in rows],
            "price": [None if i % 9 == 0 else (i * 37 % 101) / 7 for i in rows],
            "user": [None if i % 50 == 1 else i % 13 - 3 if i % 3 else i * 1_000_003 for i in rows],
            "item": [f"item ü{i % 19}" if i % 4 else f"once {i}" for i in rows],
            "url": [f"u{i * i % 301}" for i in rows],
            "time": [None if i % 31 == 7 else 1_700_000_000 + 1009 * i for i in rows],
        }
    )


def write(frame: pl.DataFrame, path: Path) -> Path:
    lists = frame.with_columns(pl.col("tags").str.split("|"))
    if path.suffix == ".parquet":
        lists.write_parquet(path)
    elif path.suffix == ".arrow":
        lists.write_ipc(path)
    elif path.suffix == ".jsonl":
        lists.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in files of every kind."""
    folder = tmp_path_factory.mktemp("raw")
    return {kind: write(raw(), folder / f"rows.{kind}") for kind in KINDS}


def overrides(kind: str, path: Path) -> tuple[str, ...]:
    form = ["dataset=parquet" if kind in ("parquet", "arrow") else "dataset=csv"]
    form += (
        ['dataset.separator="\\t"'] if kind == "tsv" else [f"dataset.kind={kind}"] if kind in ("arrow", "jsonl") else []
    )
    return (*MODEL, *form, f"dataset.files=[{path}]", *COLUMNS, f"name={kind}")


@pytest.fixture(scope="module")
def trained(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All stages on the CSV file."""
    runs = tmp_path_factory.mktemp("predict") / "runs"
    for stage in STAGES:
        run = do(stage, runs, *overrides("csv", files["csv"]))
    return run


def predictions(run: Run, source: Path, *options: str) -> pl.DataFrame:
    made = do(
        "predict",
        Path(run.config.runs),
        *overrides("csv", source),
        f"predict.input={source}",
        "overwrite=true",
        *options,
    )
    return pl.read_parquet(made.stage("predict") / "scores.parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_predict_equals_evaluate_on_the_test_split(kind: str, trained: Run, files: dict[str, Path]) -> None:
    scores = predictions(trained, files[kind])
    assert scores.schema == {"__row__": pl.Int64, "item": pl.String, "logit": pl.Float32, "probability": pl.Float32}
    assert scores["item"].to_list() == raw()["item"].to_list(), "passthrough columns stay beside the scores"
    assert scores["__row__"].to_list() == list(range(ROWS))
    evaluated = pl.read_parquet(trained.stage("evaluate") / "predictions.parquet")
    assert evaluated.height == ROWS // 10
    both = evaluated.join(scores, on="__row__", suffix="_served")
    assert both.height == evaluated.height
    assert float((both["logit"] - both["logit_served"]).abs().max()) < 1e-5  # type: ignore[arg-type]
    assert float((both["probability"] - both["probability_served"]).abs().max()) < 1e-5  # type: ignore[arg-type]
    assert evaluated["logit"].n_unique() > ROWS // 20


def test_the_test_split_holds_what_is_hard(trained: Run) -> None:
    """Rows compared above have unseen ids, missing ones, and empty, short and cut lists of tags."""
    test = pl.read_parquet(trained.stage("ingest") / "test" / "*.parquet")
    rows = (
        raw().with_row_index("__row__").join(test.select(pl.col("__row__").cast(pl.UInt32)), on="__row__", how="semi")
    )
    assert (test["user"] == 0).any() and (test["item"] == 0).any()
    assert rows["user"].null_count() and rows["price"].null_count()
    assert set(test["tags"].list.len()) == {0, 1, 2, 3} and (rows["tags"].str.count_matches(r"\|") == 3).any()


@pytest.mark.parametrize("kind", ["tsv", "parquet", "arrow", "jsonl"])
def test_ingest_reads_the_same_rows_from_every_kind_of_file(kind: str, trained: Run, files: dict[str, Path]) -> None:
    runs = Path(trained.config.runs)
    for stage in ("ingest", "train", "evaluate"):
        run = do(stage, runs, *overrides(kind, files[kind]))
    one, other = (pl.read_parquet(r.stage("evaluate") / "predictions.parquet") for r in (trained, run))
    assert one.equals(other)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_scores_do_not_depend_on_the_batch(batch_size: int, trained: Run, tmp_path: Path) -> None:
    source = write(raw().head(23), tmp_path / "few.csv")
    whole = predictions(trained, source)
    pieces = predictions(trained, source, f"predict.batch_size={batch_size}")
    assert float((whole["logit"] - pieces["logit"]).abs().max()) < 1e-5  # type: ignore[arg-type]


def test_rows_without_label_in_another_order_without_header(trained: Run, tmp_path: Path) -> None:
    frame = raw().head(50)
    expected = predictions(trained, write(frame, tmp_path / "all.csv"))
    names = ["url", "price", "tags", "time", "item", "user"]
    frame.select(names).write_csv(tmp_path / "bare.csv", include_header=False)
    assert predictions(trained, tmp_path / "bare.csv", f"predict.columns={names}").equals(expected)


def test_ids_never_seen_score_as_one_unknown(trained: Run, tmp_path: Path) -> None:
    rows = raw().head(2).with_columns(user=pl.Series([10**15, -(2**63) + 1]), item=pl.Series(["new", "newer"]))
    same = rows.with_columns(price=1.5, time=5, url=pl.lit("u0"), tags=pl.Series(["t999", "never|seen"]))
    scores = predictions(trained, write(same, tmp_path / "new.csv"))
    # a matrix product need not round all rows of a batch alike
    assert scores["logit"].to_list() == pytest.approx([scores["logit"][0]] * 2, abs=1e-6)
    assert scores["probability"].is_between(0, 1).all()


def test_int8_stays_near_float32(trained: Run, files: dict[str, Path]) -> None:
    exact = predictions(trained, files["csv"])
    narrow = predictions(trained, files["csv"], f"predict.row_type={RowType.INT8.value}")
    assert 0 < float((exact["probability"] - narrow["probability"]).abs().max()) < 0.01  # type: ignore[arg-type]


def test_default_scores_the_sample_of_raw_test_rows(small_runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "folder" / "scores.parquet"
    run = do("predict", small_runs, *SMALL, f"predict.output={output}")
    sample = pl.read_parquet(make_run(small_runs, *SMALL).stage("ingest") / "raw_sample.parquet")
    evaluated = pl.read_parquet(run.stage("evaluate") / "predictions.parquet")
    scores = pl.read_parquet(output)
    assert scores.height == sample.height == evaluated.height == 300
    assert float((scores["logit"] - evaluated["logit"]).abs().max()) < 1e-5  # type: ignore[arg-type]
    assert [path.name for path in output.parent.iterdir()] == ["scores.parquet"]


def test_scores_of_another_input_are_kept_unless_told_otherwise(runs: Path, tmp_path: Path) -> None:
    run = do("predict", runs, *SMALL)
    scores = run.stage("predict") / "scores.parquet"
    before, time = scores.read_bytes(), scores.stat().st_mtime_ns
    do("predict", runs, *SMALL)
    assert scores.stat().st_mtime_ns == time, "the same work is not done twice"
    other = tmp_path / "rows.parquet"
    pl.read_parquet(run.stage("ingest") / "raw_sample.parquet").head(7).write_parquet(other)
    with pytest.raises(StageError, match=r"scores.parquet holds other scores \(of another input\).*overwrite=true"):
        do("predict", runs, *SMALL, f"predict.input={other}")
    with pytest.raises(StageError, match=r"other scores \(of another model\)"):
        do("predict", runs, *SMALL, "predict.row_type=int8")
    assert scores.read_bytes() == before
    do("predict", runs, *SMALL, f"predict.input={other}", "overwrite=true")
    assert pl.read_parquet(scores).height == 7


def test_a_file_that_is_no_scores_is_not_overwritten(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("something of the user's own")
    with pytest.raises(StageError, match=r"mine.parquet holds other scores"):
        do("predict", runs, *SMALL, f"predict.output={tmp_path / 'mine.parquet'}")
    assert (tmp_path / "mine.parquet").read_text() == "something of the user's own"


def test_progress_knows_the_number_of_rows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    do("predict", runs, *SMALL)
    assert "predict: 300/300 rows" in capsys.readouterr().err
