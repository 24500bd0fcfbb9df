"""Commands beside the stages, on runs of users and items: they work, or say what does the job."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import compress, pareto, plan
from pipelines.pareto_config import ParetoConfig
from pipelines.plan import Survey
from recsys.core.errors import ConfigError
from recsys.core.jsonable import from_json
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import do, make_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A folder of results with one evaluated run, `small`, and its overrides."""
    folder = tmp_path_factory.mktemp("commands")
    given = (*SMALL, *ENCODER, *files(folder))
    for stage in ("ingest", "train", "evaluate"):
        do(stage, folder / "runs", *given)
    return folder / "runs", given


def test_plan_is_of_users_and_items(trained: tuple[Path, tuple[str, ...]]) -> None:
    run = make_run(trained[0], *trained[1], "name=planned", "embedding=unified", "embedding.compression_ratio=2")
    plan.work(run)
    survey = from_json(Survey, json.loads((run.stage("plan") / "survey.json").read_text()))
    assert [feature.feature for feature in survey.features] == ["user", "item"]
    assert survey.uncompressed_bytes == (61 + 41) * 8 * 4
    assert survey.ranks and survey.tables and not survey.ranks_refusal
    fitted = make_run(trained[0], *SMALL, *trained[1][-2:], "retrieval/model=ease", "name=fitted")
    with pytest.raises(ConfigError, match=r"retrieval\.model=EASE is fitted without embeddings"):
        plan.work(fitted)


def test_a_trained_run_is_compressed(trained: tuple[Path, tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    narrow = ("embedding=int8", "embedding.init.scale=0.1", "name=narrow", "export.num_golden_rows=20")
    compress.work(make_run(trained[0], "from=small", *narrow))
    shown = capsys.readouterr().out
    assert "test recall@10" in shown and "test NDCG@10" in shown and "1.00x" not in shown
    assert (trained[0] / "narrow/export/MODEL_CARD.md").is_file() and not (trained[0] / "narrow/train").exists()


def test_a_sweep_of_clicks_says_what_to_use(trained: tuple[Path, tuple[str, ...]]) -> None:
    sweeping = make_run(trained[0], *trained[1])
    methods = ParetoConfig(methods=["full"], ratios=[1], seeds=[1])
    with pytest.raises(ConfigError, match=r"python -m tools\.recall_by_bytes"):
        pareto.work(replace(sweeping, config=replace(sweeping.config, pareto=methods)))


def test_compare_says_what_to_use(trained: tuple[Path, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match=r"small, which lists items .* tools\.recall_by_bytes"):
        do("compare", trained[0], "compare.runs=[small,small2]", "name=x")
