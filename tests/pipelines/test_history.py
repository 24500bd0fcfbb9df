"""A log of impressions, clicked or not, trains attention to what its user clicked before; `predict` finds that too."""

import runpy
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError, StageError
from tests.data.test_weights import write
from tests.pipelines.world import MODEL, STAGES, do

SCORE = Path(__file__).resolve().parents[2] / "tools" / "serve_example" / "score.py"
ROWS = 800
COLUMNS = (
    "dataset=csv",
    "model=din",
    "model.embedding_dim=4",
    "model.attention_units=[4]",
    "model.hidden_units=[8]",
    "dataset.label=click",
    "dataset.categorical=[{name: user, key_type: integer}, {name: item}, "
    "{name: hist_item, multi_valued: true, vocabulary: item, max_length: 6}]",
    "dataset.timestamps=[{name: time}]",
    "dataset.split={method: time, column: time, train: 0.8, validation: 0.1, test: 0.1}",
    'dataset.history=[{user: user, time: time, columns: [item], behaviour: click, behaviours: ["1"], max_length: 6}]',
)


def raw() -> pl.DataFrame:
    rows = range(ROWS)
    return pl.DataFrame(
        {
            "click": [int((i * i + i // 3) % 7 < 3) for i in rows],
            "item": [f"i{i * 3 % 20}" if i % 9 else None for i in rows],
            "user": [i * i % 13 for i in rows],
            "time": [f"2026-01-{1 + i // 60:02d}T10:{i % 60:02d}" for i in rows],
        }
    )


def overrides(folder: Path) -> tuple[str, ...]:
    return (
        *(each for each in MODEL if not each.startswith("model")),
        *COLUMNS,
        f"dataset.files=[{folder / 'rows.csv'}]",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    raw().write_csv(folder / "rows.csv")
    for stage in STAGES:
        do(stage, folder, *overrides(folder))
    return folder


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_without_histories_are_given_them(ending: str, runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.parquet"
    source = write(raw().drop("click"), tmp_path / f"new.{ending}")
    do("predict", runs, *overrides(runs), f"predict.input={source}", f"predict.output={target}")
    known = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    both = known.join(pl.read_parquet(target), on="__row__", suffix="_new")
    assert both.height == known.height > 50 and known["logit"].n_unique() > 40
    assert both["logit"].to_list() == pytest.approx(both["logit_new"].to_list(), abs=1e-5)


def test_the_sample_of_test_rows_has_them_already(runs: Path) -> None:
    sample = pl.read_parquet(next(runs.glob("data/*/raw_sample.parquet")))
    assert sample["hist_item"].list.len().max() == 6
    do("predict", runs, *overrides(runs))


def test_the_serving_program_knows_a_missing_item_of_a_history(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its text, as which `example.csv` has it; it is no item of its own."""
    (vocabulary,) = runs.glob("data/*/vocabulary/item.parquet")
    bundle = runs / "small" / "export"
    assert pl.read_parquet(vocabulary).height == 21 and "(missing)" in (bundle / "example.csv").read_text()
    runpy.run_path(str(SCORE))["main"](bundle, None)
    assert float(capsys.readouterr().out.rpartition("trained model's logits: ")[2]) < 1e-5


def test_another_rule_makes_other_scores(runs: Path, tmp_path: Path) -> None:
    source, target = write(raw().drop("click"), tmp_path / "new.csv"), tmp_path / "scores.parquet"
    given = (f"predict.input={source}", f"predict.output={target}")
    do("predict", runs, *overrides(runs), *given)
    with pytest.raises(StageError, match=r"other scores .of another joined files"):
        do("predict", runs, *overrides(runs), "dataset.history.0.max_length=1", *given)


def test_lists_of_unequal_lengths_are_refused_with_their_rows(runs: Path, tmp_path: Path) -> None:
    rows = raw().head(3).with_columns(pl.Series("hist_item", ["i1|i2", "", "i3"]), pl.lit("1|2|3").alias("hist_gap"))
    columns = next(each for each in COLUMNS if each.startswith("dataset.categorical"))
    both = columns.replace("]", ", {name: hist_gap, multi_valued: true, key_type: integer, max_length: 6}]")
    changed = [both if each == columns else each for each in overrides(runs)]
    made = (*changed, "model.time_gaps=hist_gap", "name=gaps")
    for stage in STAGES:
        do(stage, runs, *made)
    given = (f"predict.input={write(rows, tmp_path / 'new.csv')}", f"predict.output={tmp_path / 'scores.parquet'}")
    with pytest.raises(DataError, match=r"new.csv, rows 1 to 3 .*the model refuses them"):
        do("predict", runs, *made, *given)


def test_a_time_that_is_none_is_refused(runs: Path, tmp_path: Path) -> None:
    rows = raw().head(5).with_columns(time=pl.lit("noon"))
    source = write(rows, tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"row 1 .*'time': 'noon' is no time of form iso"):
        do(
            "predict",
            runs,
            *overrides(runs),
            f"predict.input={source}",
            f"predict.output={tmp_path / 'scores.parquet'}",
        )
