"""Commands as a user types them: a wrong option is told in one line with the key, what was given and what would do."""

import re
from pathlib import Path

import pytest

from tests.pipelines.world import SMALL, call, command_line

CASES: dict[str, tuple[str, str]] = {
    "unknown key": (
        "train.batch_sise=3",
        r"train.batch_sise=3: no such key. Did you mean 'batch_size'\? There are \['batch_size'",
    ),
    "unknown key, added": ("+train.batch_sise=3", r"train.batch_sise=3: no such key. Did you mean 'batch_size'\?"),
    "unknown key at the top": ("bacth=3", r"bacth=3: no such key. There are \['dataset', 'embedding'"),
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
        r"Could not find 'model/dcnv3' Available options in 'model': dcnv2 deepfm",
    ),
    "unknown experiment": ("experiment=nope", r"Could not find 'experiment/nope' Available options"),
    "unknown group": ("+modle=dcnv2", r"modle='dcnv2': no such key. Did you mean 'model'"),
    "foreign class": (
        "model._target_=os.system",
        r"model._target_='os.system': only classes below 'recsys.' are built",
    ),
    "class of another kind": ("model._target_=recsys.train.config.TrainConfig", r"model"),
    "not to be parsed": ("train.batch_size=[", r"train.batch_size=\[: "),
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
