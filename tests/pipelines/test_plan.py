"""The planner as a user types it: a budget gives tables, `plan.json` and `survey.json`, and nothing is trained."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import plan, plan_tables
from pipelines.config import Run
from pipelines.entry import CONFIG_FOLDER
from pipelines.plan import Survey
from recsys.core.errors import ConfigError
from recsys.core.jsonable import from_json
from recsys.core.plan import TablePlan
from recsys.embeddings.planned import PlanFileConfig
from recsys.embeddings.survey import MethodSurvey
from tests.pipelines.world import SMALL, do, make_run

METHODS = Path(CONFIG_FOLDER) / "embedding"


def planned(runs: Path, *overrides: str) -> tuple[Run, Survey]:
    run = make_run(runs, *SMALL, *overrides)
    plan.work(run)
    return run, from_json(Survey, json.loads((run.stage("plan") / "survey.json").read_text()))


@pytest.fixture(scope="module")
def unified(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Survey]:
    return planned(tmp_path_factory.mktemp("plan"), "embedding=unified", "budget_mib=0.004", "plan.num_ranks=2")


def test_budget_is_the_embeddings(unified: tuple[Run, Survey]) -> None:
    run, survey = unified
    assert run.config.embedding.budget_mib == 0.004 and "budget_mib" not in run.values
    assert survey.budget_bytes == int(0.004 * 2**20)


def test_every_method_is_there_with_a_reason_or_a_plan(unified: tuple[Run, Survey]) -> None:
    _, survey = unified
    assert [method.method for method in survey.methods] == sorted(path.stem for path in METHODS.glob("*.yaml"))
    for method in survey.methods:
        assert bool(method.refusal) != (method.serving_bytes is not None), method
        if method.serving_bytes is not None:
            assert method.floor_bytes is not None
            assert method.floor_bytes <= survey.budget_bytes and method.serving_bytes <= survey.budget_bytes
    reasons = {method.method: method.refusal for method in survey.methods}
    assert "needs" in reasons["full"] and "'path'" in reasons["plan"]


def test_the_plan_is_what_would_be_trained(unified: tuple[Run, Survey]) -> None:
    run, survey = unified
    chosen = TablePlan.from_json((run.stage("plan") / "plan.json").read_text())
    assert survey.chosen == "unified" and survey.refusal == ""
    assert sum(feature.serving_bytes for feature in survey.features) == chosen.num_bytes <= survey.budget_bytes
    values = [*SMALL, "name=again", "embedding=plan", f"embedding.path={run.stage('plan') / 'plan.json'}"]
    trained = do("train", Path(run.config.runs), *values)
    assert TablePlan.from_json((trained.stage("train") / "plan.json").read_text()) == chosen


def test_ranks_hold_the_tables_between_them(unified: tuple[Run, Survey]) -> None:
    _, survey = unified
    assert [rank.rank for rank in survey.ranks] == [0, 1]
    assert sum(rank.table_bytes for rank in survey.ranks) == sum(each.training_bytes for each in survey.features)
    assert all(rank.optimizer_bytes * 4 == rank.table_bytes for rank in survey.ranks), "one value a row of four"
    assert survey.ranks[0].replicated_bytes == survey.ranks[1].replicated_bytes > 0
    assert {table.table for table in survey.tables} == {"table_unified_C1"}


def test_tables_are_printed_and_a_second_time_nothing_is_done(
    unified: tuple[Run, Survey], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = unified
    before = (run.stage("plan") / "stage.json").read_bytes()
    plan.work(run)
    shown = capsys.readouterr().out
    for part in ("every method at this budget", "> │ unified", "below its floor", "by feature", "each of 2 rank(s)"):
        assert part in shown, part
    assert (run.stage("plan") / "stage.json").read_bytes() == before


def test_methods_refused_for_one_reason_are_told_together(
    unified: tuple[Run, Survey], capsys: pytest.CaptureFixture[str]
) -> None:
    _, survey = unified
    reasons = {"hash": "no column", "dhe": "no column", "full": "no file", "int8": ""}
    methods = tuple(MethodSurvey(method=name, refusal=reason) for name, reason in reasons.items())
    plan_tables.show(replace(survey, methods=methods))
    shown = capsys.readouterr().out
    assert "hash, dhe: no column" in shown and "full: no file" in shown and shown.count("no column") == 1


def test_method_below_its_floor_is_told_after_the_survey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"embedding: quotient_remainder needs .* bytes, above"):
        planned(tmp_path, "embedding=quotient_remainder", "budget_mib=0.0001")
    assert "every method at this budget" in capsys.readouterr().out
    assert not list(tmp_path.rglob("plan")), "a folder without a plan would look finished"


def test_refusal_names_what_fits_or_the_lowest_floor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quotient_remainder needs .* These fit: .*\bauto\b.*\brobe\b"):
        planned(tmp_path, "embedding=quotient_remainder", "budget_mib=0.0003")
    with pytest.raises(ConfigError, match=r"full needs .* The lowest floor is that of \w+: \d+ bytes\."):
        planned(tmp_path, "budget_mib=0.000001")


def test_full_has_no_choice_so_auto_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, survey = planned(tmp_path, "budget_mib=0.002")
    assert survey.chosen == "auto" and "needs" in survey.refusal
    assert sum(feature.serving_bytes for feature in survey.features) <= survey.budget_bytes
    assert "full does not fit, so auto plans" in capsys.readouterr().out
    # What is served of a plan is its method's to say: a plan's file without it would serve auto's int4 rows as float32.
    again = PlanFileConfig(path=str(run.stage("plan") / "plan.json"))
    again_plan = TablePlan.from_json(Path(again.path).read_text())
    assert again.serving_plan(again_plan).num_bytes <= survey.budget_bytes < again_plan.num_bytes


def test_what_replicates_tables_holds_them_on_every_rank(tmp_path: Path) -> None:
    adam = ("train.optimizer.table=adam", "plan.num_ranks=2")
    _, survey = planned(tmp_path, "embedding=hash", "embedding.compression_ratio=3", *adam)
    total = sum(each.training_bytes for each in survey.features)
    assert [rank.table_bytes for rank in survey.ranks] == [total, total]
    assert [rank.optimizer_bytes for rank in survey.ranks] == [2 * total, 2 * total]


def test_two_budgets_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget_mib=1.0 and embedding.budget_mib=2.0 are the same option. Set one"):
        make_run(tmp_path, *SMALL, "budget_mib=1.0", "embedding.budget_mib=2.0")
    with pytest.raises(ConfigError, match="budget_mib and compression_ratio are both set"):
        make_run(tmp_path, *SMALL, "budget_mib=1", "embedding.compression_ratio=2")
    with pytest.raises(ConfigError, match=r"plan: num_ranks=-1: must be 0 or more"):
        make_run(tmp_path, *SMALL, "plan.num_ranks=-1")


def test_a_budget_below_full_tables_of_small_features_has_a_row_for_every_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No feature is left to compress, so that the floor is that of full tables."""
    with pytest.raises(ConfigError, match=r"dpq needs [\d,]+ bytes, above"):
        planned(tmp_path, "embedding=dpq", "embedding.full_below=100000", "budget_mib=0.002")
    assert "every method at this budget" in capsys.readouterr().out


def test_a_method_that_raises_something_else_is_a_row_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text('{"tables": 1}')
    with pytest.raises(ConfigError, match=r"embedding: path=.*broken.json"):
        planned(tmp_path, "embedding=plan", f"embedding.path={tmp_path / 'broken.json'}")
    assert "every method at this budget" in capsys.readouterr().out


def test_bytes_in_training_are_those_that_training_reports(tmp_path: Path) -> None:
    """Weights outside tables count as well, as the projections here."""
    _, survey = planned(tmp_path, "embedding=mde", "embedding.compression_ratio=2")
    trained = do("train", tmp_path, *SMALL, "embedding=mde", "embedding.compression_ratio=2")
    metrics = json.loads((trained.stage("train") / "metrics.json").read_text())
    (method,) = (each for each in survey.methods if each.method == survey.chosen)
    assert metrics["plan.training_bytes"] == method.training_bytes and method.training_bytes
