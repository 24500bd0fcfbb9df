"""Searches within a sweep: one for all budgets of a seed, whose plans are retrained, evaluated, exported and told."""

import json
from pathlib import Path

import pytest

from pipelines.pareto_config import ParetoConfig
from recsys.core.errors import ConfigError
from recsys.evaluate.pareto import Cell, Searched, SearchedFeature, SearchedPlan
from recsys.evaluate.pareto_search import octave_widths, search_markdown, search_section, width_map
from tests.pipelines.test_pareto import records
from tests.pipelines.world import SMALL, call

SWEEP = (
    "experiment=pareto/synthetic",
    *(text for text in SMALL if not text.startswith(("name=", "dataset=", "model="))),
    "model.embedding_dim=4",
    "dataset.zipf_exponent=1.5",
    "name=searched",
    "embedding.init.scale=0.01",
    "pareto.methods=[full]",
    "pareto.searches=[matryoshka]",
    "pareto.ratios=[1,4,1000]",
    "pareto.seeds=[1]",
    "+pareto.overrides.search_matryoshka={search.epochs:2}",
)


@pytest.mark.slow
def test_searches_are_made_once_and_their_plans_are_cells(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ended = call("pareto", runs, *SWEEP)
    assert ended.returncode == 0, ended.stderr[-3000:]
    numbers = json.loads((runs / "searched" / "pareto.json").read_text())
    cells = {(r["cell"]["method"], r["cell"]["ratio"], r["cell"]["seed"]): r for r in numbers["results"]}
    assert set(cells) == {
        ("full", 1.0, 1),
        ("search_matryoshka", 4.0, 1),
        ("search_matryoshka_sliced", 4.0, 1),
    }
    for (_, ratio, _), cell in cells.items():
        assert cell["plan_bytes"] == pytest.approx(numbers["full_bytes"] / ratio, rel=0.011)
    assert {refusal["method"] for refusal in numbers["refusals"]} >= {"search_matryoshka"}
    assert all(refusal["floor_bytes"] for refusal in numbers["refusals"])
    assert [(s["method"], s["seed"], len(s["plans"])) for s in numbers["searches"]] == [("search_matryoshka", 1, 1)]
    before = records(runs)
    again = call("pareto", runs, *SWEEP)
    assert again.returncode == 0 and records(runs) == before
    page = (runs / "searched" / "pareto.html").read_text()
    assert "What the searches cost" in page and page.count('class="widths"') == 1
    assert "What the searches cost" in (runs / "searched" / "pareto.md").read_text()


def searched(name: str = "search_dnis", seconds: float = 36.0) -> Searched:
    features = (
        SearchedFeature(feature="<user>", pieces=((2, 8.0), (3, 1.0), (5, 0.0))),
        SearchedFeature(feature="item", pieces=((4, 2.0),)),
    )
    cell = Cell(method=name, ratio=2, seed=1, trial="", run="s/searches", command="python -m pipelines.search")
    return Searched(method=name, seed=1, seconds=seconds, cell=cell, plans=(SearchedPlan(ratio=2, features=features),))


def test_octaves_of_ids_get_the_mean_of_their_widths() -> None:
    (feature, _) = searched().plans[0].features
    # ids 0 | 1, 2 | 3 … 6 | 7, 8, 9
    assert octave_widths(feature) == pytest.approx([8.0, 4.5, 0.5, 0.0])


def test_the_section_tells_costs_and_draws_each_plan() -> None:
    section = search_section([searched(), searched(seconds=108.0)])
    assert "<user>" not in section and "&lt;user&gt;" in section
    assert section.count("<svg") == 1 and "0.020" in section and "0.030" in section
    assert width_map(searched().plans[0]).count("<rect") == 4 + 3
    assert search_section([]) == "" and search_markdown([]) == []
    assert "| search_dnis | 0.020 | 0.030 | 2 | 1 |" in search_markdown([searched(), searched(seconds=108.0)])


def test_searches_are_named_once_and_may_be_named_in_overrides() -> None:
    config = ParetoConfig(
        methods=["mde"], ratios=[2], seeds=[1], searches=["mde"], overrides={"search_mde": {"search.blocks": 1}}
    )
    assert config.all_methods == ["mde", "search_mde", "search_mde_sliced"]
    assert config.given("search_mde") == ("search.blocks=1",) and config.given("mde") == ()
    with pytest.raises(ConfigError, match="holds an entry twice"):
        ParetoConfig(methods=["full"], ratios=[2], seeds=[1], searches=["mde", "mde"])
    with pytest.raises(ConfigError, match="search_dnis"):
        ParetoConfig(methods=["full"], ratios=[2], seeds=[1], searches=["mde"], overrides={"search_dnis": {}})
