"""Errors of a configuration name the line and column of the yaml that gives what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.world import command_line

MINE = """# mine
_target_: recsys.data.table.TableDataset
name: clicks
files: [a.csv]
label: y
numeric:
  - {name: price}
categorical:
  - {name: user, key_type: integer}
  - name: item
    min_count: 2
split: {method: shuffle, train: 0.8, validation: 0.1, test: 0.1}
"""
CASES = {
    "a value": (
        "{name: price}",
        "{name: price, transform: logg}",
        "line 7, column 19",
        "transform='logg': must be one",
    ),
    "what a class refuses": ("min_count: 2", "min_count: 0", "line 11, column 5", "min_count=0 of feature 'item'"),
    "a key that is none": ("min_count: 2", "mincount: 2", "line 11, column 5", "mincount=2: no such key"),
    "a section": ("test: 0.1", "test: 0.2", "line 12, column 1", "must add up to 1"),
    "what the features refuse together": (
        "min_count: 2",
        "vocabulary: itm",
        "line 10, column 5",
        "vocabulary='itm' of feature 'item'",
    ),
}


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says of these overrides."""

    def call(*overrides: str) -> str:
        arguments = (f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=mine", *overrides)
        assert command_line("ingest", tmp_path / "runs", *arguments) == 1
        return capsys.readouterr().err.partition("error: ")[2]

    return call


def write(folder: Path, text: str) -> Path:
    file = folder / "conf" / "dataset" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("case", CASES)
def test_the_line_is_named(case: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    before, after, where, said = CASES[case]
    assert MINE.count(before) == 1
    file = write(tmp_path, MINE.replace(before, after))
    (tmp_path / "a.csv").write_text("y,price,user,item\n1,2,3,4\n")
    message = refused(f"dataset.files=[{tmp_path / 'a.csv'}]")
    assert message.startswith(f"{file}, {where}: ") and said in message


def test_keys_of_list_entries_that_a_yaml_leaves_out_may_be_given(tmp_path: Path, refused: Callable[..., str]) -> None:
    write(tmp_path, MINE)
    assert refused("dataset.categorical.0.max_size=-3").startswith("dataset.categorical[0]: max_size=-3")
    assert "no such key" in refused("dataset.categorical.0.maximum=3")


def test_what_the_command_line_gives_is_on_no_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    write(tmp_path, MINE)
    split = ("dataset.split.test=0.5", "dataset.split={method: shuffle, train: 2}")
    for override in (*split, "train.epochs=-1", "budget_mib=-1", "embedding.budget_mib=-1"):
        message = refused(override)
        assert ".yaml" not in message and override.partition("=")[0].rpartition(".")[0] in message


def test_a_section_of_several_files_is_not_placed(tmp_path: Path, refused: Callable[..., str]) -> None:
    """Which of them is wrong cannot be told."""
    write(tmp_path, MINE.replace("train: 0.8", "train: 0.9"))
    file = tmp_path / "conf" / "experiment" / "e.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndataset:\n  split:\n    column: ''\n")
    assert refused("experiment=e").startswith("dataset.split shares")


def test_what_a_parent_says_is_found_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    parent = write(tmp_path, MINE.replace("min_count: 2", "min_count: 0")).rename(tmp_path / "conf/dataset/base.yaml")
    (tmp_path / "conf/dataset/mine.yaml").write_text("defaults: [base]\nlabel: z\n")
    assert refused().startswith(f"{parent}, line 11, column 5: dataset.categorical[1]")


def test_errors_of_data_are_on_no_line_of_a_yaml(tmp_path: Path, refused: Callable[..., str]) -> None:
    write(tmp_path, MINE.replace("a.csv", "label.csv"))
    assert refused().startswith("label.csv: no such file")


def test_an_experiment_wins_over_the_option_that_it_changes(tmp_path: Path, refused: Callable[..., str]) -> None:
    write(tmp_path, MINE)
    file = tmp_path / "conf" / "experiment" / "e.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndataset:\n  split: 3\n")
    assert refused("experiment=e").startswith(f"{file}, line 3, column 3: dataset.split")
    file.write_text("# @package _global_\ntrain:\n  epochs: -1\n")
    assert refused("experiment=e").startswith(f"{file}, line 3, column 3: train")
