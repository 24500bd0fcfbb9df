"""Which data count as the same rows: ingested for real, compared by their records."""

from pathlib import Path

import pytest

from pipelines.compare_sources import Source, check_same_data
from pipelines.stage import fingerprint
from recsys.core.errors import StageError
from tests.data.behaviour_logs import random_log
from tests.pipelines.world import MODEL, SMALL, do

LOG = (
    *(option for option in MODEL if not option.startswith("model")),
    "model=lr",
    "dataset=taobao",
    "dataset.log.columns=[]",
    "dataset.log.behaviour=''",
    "dataset.log.behaviours=[]",
    "dataset.log.key_type=string",
)


def ingested(runs: Path, name: str, *overrides: str) -> Source:
    """What a comparison knows of a run's data, as if the run had been evaluated on it."""
    run = do("ingest", runs, *overrides)
    record = {"resolved": run.values, "inputs": {"ingest": fingerprint(run.stage("ingest"))}}
    return Source(name=name, folder=runs / name, record=record, train=runs / name / "train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    random_log(400, seed=1).write_csv(folder / "log.csv")
    return folder


@pytest.fixture(scope="module")
def first(runs: Path) -> Source:
    return ingested(runs, "a", *LOG, f"dataset.log.files=[{runs / 'log.csv'}]")


@pytest.mark.parametrize(
    "other",
    [
        "dataset.seed=7",  # other negatives: the same numbers of rows and, two negatives behind each click, labels
        "dataset.negatives=uniform",
        "dataset.repeated_targets=true",
    ],
)
def test_two_samplings_of_one_log_are_other_rows(runs: Path, first: Source, other: str) -> None:
    sources = [first, ingested(runs, "b", *LOG, f"dataset.log.files=[{runs / 'log.csv'}]", other)]
    key = other.partition("=")[0]
    with pytest.raises(StageError, match=rf"a and b were evaluated on other data \({key}: .*may decide which rows"):
        check_same_data(runs, sources, across_ingests=True)


@pytest.mark.parametrize(
    "other", ["dataset.max_length=3", "dataset.log.attributes=[]", "dataset.min_count=2", "ingest.rows_per_file=50"]
)
def test_the_same_rows_encoded_otherwise_are_the_same(runs: Path, first: Source, other: str) -> None:
    sources = [first, ingested(runs, "b", *LOG, f"dataset.log.files=[{runs / 'log.csv'}]", other)]
    (note,) = check_same_data(runs, sources, across_ingests=True)
    assert note.endswith("from the same raw files, rows and labels: b.")
    with pytest.raises(StageError, match=r"set compare\.across_ingests=true"):
        check_same_data(runs, sources, across_ingests=False)


def test_of_generated_rows_any_option_may_decide(runs: Path) -> None:
    few = (*SMALL, "dataset.num_rows=500")
    sources = [ingested(runs, "a", *few), ingested(runs, "b", *few, "dataset.min_count=2")]
    with pytest.raises(StageError, match=r"dataset.min_count: 5 against 2 may decide which rows there are"):
        check_same_data(runs, sources, across_ingests=True)


def test_another_file_is_other_rows(runs: Path, first: Source) -> None:
    path = runs / "other.csv"
    random_log(400, seed=2).write_csv(path)
    sources = [first, ingested(runs, "b", *LOG, f"dataset.log.files=[{path}]")]
    with pytest.raises(StageError, match="and the raw files differ too"):
        check_same_data(runs, sources, across_ingests=True)
