"""Commands as a user types them: a wrong option is told in one line with the key, what was given and what would do."""

import re
from pathlib import Path

import pytest

from pipelines.config import MAX_NAME_BYTES, folder_name
from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from tests.pipelines.world import SMALL, call, command_line

CASES: dict[str, tuple[str, str]] = {
    "unknown key": (
        "train.batch_sise=3",
        r"train.batch_sise=3: no such key. Did you mean 'batch_size'\? There are \['batch_size'",
    ),
    "unknown key, added": ("+train.batch_sise=3", r"train.batch_sise=3: no such key. Did you mean 'batch_size'\?"),
    "unknown key at the top": ("bacth=3", r"bacth=3: no such key. There are \[.*'dataset', 'embedding'"),
    "key of another option": (
        "embedding.num_lookups=2",
        r"embedding.num_lookups=2: no such key.*There are \['budget_mib'",
    ),
    "text for a number": ("train.batch_size=abc", r"train.batch_size='abc': must be of type int"),
    "fraction for a count": ("train.epochs=1.5", r"train.epochs=1.5: must be of type int"),
    "number for a switch": ("overwrite=3", r"overwrite=3: must be of type bool"),
    "null": ("seed=null", r"seed=None: must be of type int"),
    "unknown choice": (
        "train.optimizer.table=adamm",
        r"train.optimizer.table='adamm': must be one of \['rowwise_adagrad', 'adagrad'",
    ),
    "impossible value": ("train.epochs=0", r"epochs=0: must be 1 or more"),
    "impossible pair": ("train.optimizer.table_regularizer=0.1", r"Set table: adam, or table_regularizer: 0"),
    "impossible name": ("name=../elsewhere", r"name='../elsewhere': must be a folder name"),
    "not a number": ("train.optimizer.dense_learning_rate=nan", r"dense_learning_rate=nan: must be of type float"),
    "unknown option of a group": (
        "model=dcnv3",
        r"Could not find 'model/dcnv3' Available options in 'model': .*dcnv2.* deepfm",
    ),
    "data set without a config": (
        "dataset=mine",
        r"Could not find 'dataset/mine' Available .* taobao\. For rows of your",
    ),
    "model of users and items without any": (
        "retrieval/model=mf",
        r"Could not override 'retrieval/model'. No match in the defaults list\. retrieval=default brings",
    ),
    "schema to be found": (
        "dataset.schema=infer",
        r"no such key.* `python -m pipelines.infer infer.files=\[…\] infer.out",
    ),
    "unknown experiment": ("experiment=nope", r"Could not find 'experiment/nope' Available options"),
    "no option of a group that needs one": ("dataset=null", r"dataset"),
    "unknown group": ("+modle=dcnv2", r"modle='dcnv2': no such key. Did you mean 'model'"),
    "foreign class": (
        "model._target_=os.system",
        r"model._target_='os.system': only classes below 'recsys.' are built",
    ),
    "unknown key of a foreign class": (
        "model={_target_: os.system, a: 1}",
        r"model._target_='os.system': only classes below 'recsys.' are built",
    ),
    "class of another kind": ("model._target_=recsys.train.config.TrainConfig", r"model"),
    "not to be parsed": ("train.batch_size=[", r"train.batch_size=\[: Hydra's grammar cannot read this value. Quote"),
    "left to the user": ("dataset=csv", r"dataset.files has no default. Set it on the command line: dataset.files="),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_option(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    override, message = CASES[case]
    assert command_line("train", tmp_path / "runs", override) == 1
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.startswith("error: ") and len(told.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_loss_of_what_nothing_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("experiment=graph/ml_1m_implicit_bspm", "retrieval/loss=ccl")
    assert command_line("train", tmp_path / "runs", *given) == 1
    told = capsys.readouterr().err
    assert "trained one (not ease, gf_cf, …) brings retrieval/loss" in told and "append" not in told


def test_wrong_option_in_a_process(tmp_path: Path) -> None:
    result = call("train", tmp_path / "runs", "train.batch_sise=3")
    assert result.returncode == 1
    assert result.stderr.startswith("error: train.batch_sise=3: no such key. Did you mean 'batch_size'?")
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1
    assert not result.stdout and not (tmp_path / "runs").exists()


def test_bad_row_in_a_process(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("y,item\n" + "1,a\n0,b\n" * 50 + "2,c\n")
    overrides = (
        "dataset=csv",
        f"dataset.files=[{tmp_path}/raw.csv]",
        "dataset.label=y",
        "dataset.categorical=[{name: item}]",
    )
    result = call("run", tmp_path / "runs", *overrides)
    assert result.returncode == 1
    assert "raw.csv, row 101 (from 1, header not counted), column 'y': '2' is not a label" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bug_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the user's to mend must not be told as if it were."""
    monkeypatch.setattr("pipelines.ingest.ingest", None)
    with pytest.raises(TypeError, match="not callable"):
        command_line("ingest", tmp_path / "runs", *SMALL)


def test_jobs_of_a_sweep_get_folders_of_their_own(tmp_path: Path) -> None:
    assert command_line("ingest", tmp_path / "runs", "--multirun", *SMALL, "ingest.seed=1,2") == 0
    assert len(list((tmp_path / "runs" / "data").glob("synthetic-*/manifest.json"))) == 2


def test_jobs_with_very_many_overrides_get_folders_that_file_systems_take(tmp_path: Path) -> None:
    many = (*SMALL, f"infer.files=[{'x' * 240}.csv]", "train.run_on.precision=float32,bfloat16")
    assert command_line("ingest", tmp_path / "runs", *SMALL) == 0
    assert command_line("train", tmp_path / "runs", "--multirun", *many) == 0
    assert len(list((tmp_path / "runs" / "small").glob("*/train/stage.json"))) == 2
    assert folder_name("embedding=full,seed=[1]") == "embedding=full,seed=_1_"
    assert len(folder_name("ü" * 300).encode()) <= MAX_NAME_BYTES


MINE = """
_target_: recsys.data.table.TableDataset
name: mine
files: [raw.csv]
label: y
categorical:
  - {name: item}
"""


def yaml_of_a_user(folder: Path, text: str = MINE) -> str:
    """Write it as the user's own `conf/dataset/mine.yaml`; returns the override that lets Hydra find it."""
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "mine.yaml").write_text(text.replace("raw.csv", str(folder / "raw.csv")))
    return f"hydra.searchpath=[file://{folder}/conf]"


@pytest.mark.parametrize(
    "options",
    [("dataset={separator: ';'}",), ('dataset.separator=";"',), ('dataset.separator=";"', "dataset.split.method=hash")],
)
def test_keys_that_a_yaml_leaves_out_can_be_given(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("y;item\n" + "1;a\n0;b\n" * 200)
    found = yaml_of_a_user(tmp_path)
    assert command_line("ingest", tmp_path / "runs", found, "dataset=mine", *options) == 0
    (manifest,) = (tmp_path / "runs" / "data").glob("table-*/manifest.json")
    assert Manifest.read(manifest.parent).categorical["item"].num_keys == 2


def test_keys_that_neither_yaml_nor_class_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = yaml_of_a_user(tmp_path)
    for wrong, near in (("dataset.seperator='x'", "separator"), ("dataset.split.colum='x'", "column")):
        assert command_line("ingest", tmp_path / "runs", found, "dataset=mine", wrong) == 1
        assert f"error: {wrong}: no such key. Did you mean {near!r}?" in capsys.readouterr().err


def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = yaml_of_a_user(tmp_path, MINE + "numeric: {\n")
    assert command_line("ingest", tmp_path / "runs", found, "dataset=mine") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: a yaml of the configuration cannot be read: ") and "Traceback" not in told
    assert "mine.yaml" in told and "line " in told


def test_failed_jobs_of_a_sweep_are_named_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("--multirun", *SMALL, "ingest.seed=1,2", "ingest.chunk_rows=0,1000")
    assert command_line("ingest", tmp_path / "runs", *sweep) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: 2 job(s) of the sweep failed, told above: ")
    assert last.count("ingest.chunk_rows=0") == 2 and "ingest.seed=2" in last and "chunk_rows=1000" not in last
    assert len(list((tmp_path / "runs" / "data").glob("synthetic-*/manifest.json"))) == 2


def test_a_bug_in_a_later_job_of_a_sweep_is_shown_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = iter([DataError("of the rows"), TypeError("ours")])

    def failing(*_: object, **__: object) -> None:
        raise next(errors)

    monkeypatch.setattr("pipelines.ingest.ingest", failing)
    assert command_line("ingest", tmp_path / "runs", "--multirun", *SMALL, "ingest.seed=1,2") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2 job(s) of the sweep failed" in last and "ingest.seed=2" in last
    assert "TypeError: ours" in caplog.text


def test_null_chooses_nothing_of_a_group(tmp_path: Path) -> None:
    """Messages say `retrieval/start=null`, and Hydra takes `~retrieval/start` alone."""
    start = ("experiment=graph/gowalla", "retrieval/start=null", "retrieval.model.embedding_dim=0")
    for overrides, rest in (((*SMALL, "search=null", "retrieval=null"), 0), (start, 1)):
        assert command_line("ingest", tmp_path / "runs", *overrides) == rest
