"""The reproduction table: its arithmetic on runs made by hand, and what a reader sees."""

import json
from pathlib import Path

import pytest

from tools.reproduce_models import Published, Row, Table
from tools.reproduce_table import Reproduction, RunFailure, RunResult, Side, Summary, compare, summarise

ROWS = [
    Row(
        name="dcnv2",
        title="DCNv2",
        published=Published(auc=0.9845, log_loss=0.1491, num_parameters=458_391, mean_auc=0.98382),
        peer=True,
    ),
    Row(name="fm", title="FM", published=Published(auc=0.9671, log_loss=0.2065, num_parameters=59_280)),
    Row(name="lr", title="LR"),
]
TABLE = Table(dataset="frappe", title="Frappe", rows=ROWS, seeds=[1, 2, 3], margin=0.0005, notes=["a note."])


def run(model: str, side: Side, seed: int, auc: float, *, seconds: float = 10.0) -> RunResult:
    return RunResult(
        model=model,
        side=side,
        seed=seed,
        validation_auc=0.99,
        test_auc=auc,
        test_log_loss=1 - auc,
        num_parameters=458_401,
        num_epochs=18,
        seconds=seconds,
        commit="abc" if side is Side.OURS else "",
    )


def summary(auc: float, std: float | None = None, num_seeds: int = 1) -> Summary:
    seeds = list(range(num_seeds))
    return Summary(seeds=seeds, auc=auc, auc_std=std, log_loss=0.2, log_loss_std=None, num_parameters=1, seconds=1.0)


@pytest.fixture
def found() -> Reproduction:
    made = Reproduction(TABLE, ROWS, "python -m tools.reproduce_frappe")
    for seed, auc, seconds in ((1, 0.984, 30), (2, 0.985, 10), (3, 0.986, 20)):
        made.results.append(run("dcnv2", Side.OURS, seed, auc, seconds=seconds))
    made.results += [run("dcnv2", Side.PEER, 1, 0.9840), run("dcnv2", Side.PEER, 2, 0.9850)]
    made.results.append(run("fm", Side.OURS, 1, 0.967))
    made.failures.append(RunFailure(model="lr", side=Side.OURS, seed=1, message="no\nmemory", log="lr.txt"))
    return made


def test_means_deviations_and_medians(found: Reproduction) -> None:
    ours = found.summary("dcnv2", Side.OURS)
    assert ours is not None
    assert ours.seeds == [1, 2, 3]
    assert ours.auc == pytest.approx(0.985)
    assert ours.auc_std == pytest.approx(0.001)  # of a sample: n - 1
    assert ours.log_loss == pytest.approx(0.015)
    assert ours.seconds == 20
    assert summarise([run("fm", Side.OURS, 1, 0.9)]).auc_std is None


def test_difference_and_its_error(found: Reproduction) -> None:
    difference = found.difference("dcnv2")
    assert difference is not None
    assert difference.auc == pytest.approx(0.0005)
    assert difference.standard_error == pytest.approx((0.001**2 / 3 + 0.0005 / 1000 / 2) ** 0.5)
    assert difference.verdict == "within .0005"
    assert found.difference("fm") is None


@pytest.mark.parametrize(
    ("ours", "margin", "verdict"),
    [
        (0.9805, 0.0005, "within .0005"),
        (0.9795, 0.0005, "within .0005"),
        (0.98051, 0.0005, "higher"),
        (0.97949, 0.0005, "lower"),
        (0.98, 0.0, "equal"),
        (0.9799, 0.0, "lower"),
    ],
)
def test_verdicts_at_the_margin(ours: float, margin: float, verdict: str) -> None:
    difference = compare(summary(ours), summary(0.98), margin)
    assert difference.verdict == verdict
    assert difference.standard_error is None


def test_markdown(found: Reproduction) -> None:
    lines = found.markdown().splitlines()
    assert lines[2].startswith("| model | published AUC | log loss | FuxiCTR AUC | log loss | recsys AUC | log loss |")
    assert lines[4] == (
        "| DCNv2 | .9845 (.98382) | .1491 | .98450 ± .00071 [2] | .01550 ± .00071 | .98500 ± .00100 [3] | "
        ".01500 ± .00100 | +.00050 ± .00076 | within .0005 | 458,401 (BARS 458,391) | 20 | 10 |"
    )
    assert lines[5].startswith("| FM | .9671 | .2065 | – | – | .96700 [1] | .03300 | – | – |")
    assert lines[6].startswith("| LR (failed: recsys) | – | – |")
    text = "\n".join(lines)
    assert "- Best mean of recsys: DCNv2, .98500." in text
    assert "- lr, recsys, seed 1: no memory (log: lr.txt)" in text
    assert "commit abc." in text


def test_columns_that_nothing_fills_are_left_out() -> None:
    found = Reproduction(TABLE, ROWS[2:], "command")
    found.results.append(run("lr", Side.OURS, 1, 0.9))
    assert found.markdown().splitlines()[2] == "| model | recsys AUC | log loss | parameters | seconds: recsys |"


def test_files_appear_whole_and_hold_every_run(found: Reproduction, tmp_path: Path) -> None:
    found.write(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["reproduction.json", "reproduction.md"]
    read = json.loads((tmp_path / "new" / "reproduction.json").read_text())
    assert len(read["runs"]) == 6
    assert read["models"][0]["difference"]["verdict"] == "within .0005"
    assert read["models"][0]["recsys"]["seeds"] == [1, 2, 3]
    assert read["models"][1]["FuxiCTR"] is None
    assert read["failures"][0]["side"] == "recsys"
