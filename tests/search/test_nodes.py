"""Searches for widths of users and items: on pairs held out of training, within the budget, retrained as any plan."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.search import search_folder
from pipelines.search_data import held_pairs
from pipelines.search_report import read_choice, read_frontier
from recsys.core.errors import ConfigError, DataError
from recsys.core.interactions import Interactions
from recsys.core.plan import TablePlan
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import do
from tests.search.test_contract import QUICK, SEARCHES, TRIALS
from tests.search.world import Made

RATIO = 4
GIVEN = (*SMALL, *ENCODER, "train.epochs=2")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of each search's finished stage."""
    folder = tmp_path_factory.mktemp("nodes")
    given = (*GIVEN, *files(folder), f"search.compression_ratio={RATIO}")

    def made(search: str) -> Path:
        quick = (*QUICK.get(search, ()), f"search.frontier={[] if search in TRIALS else [2]}")
        return search_folder(do("search", folder / "runs", *given, f"search={search}", *quick, f"name={search}"))

    return Made(made)


@pytest.mark.parametrize("search", SEARCHES)
def test_widths_of_users_and_items_meet_the_budget(search: str, found: dict[str, Path]) -> None:
    frontier = read_frontier(found[search])
    assert frontier.metric == "recall at 5"
    for point in frontier.points:
        plan = TablePlan.from_json((found[search] / point.plan).read_text())
        assert 0.99 * point.budget_bytes <= plan.num_bytes <= point.budget_bytes
        assert [feature.feature for feature in point.features] == ["user", "item"]
        if search not in ("mde", "autodim"):  # which score nothing
            assert point.score is not None and 0 < point.score < 1


@pytest.mark.parametrize("search", ["dnis", "pep"])  # pep: whose plans have a file beside them
def test_a_found_plan_is_trained_evaluated_and_exported(search: str, found: dict[str, Path]) -> None:
    runs = found[search].parents[2]
    given = (*GIVEN, *files(runs.parent), "embedding.init={distribution: normal, scale: 1e-4, center: 0.0}")
    plan = ("embedding=plan", f"embedding.path={found[search] / 'plan.json'}")
    for stage in ("train", "evaluate", "export"):
        run = do(stage, runs, *given, *plan, f"name=again_{search}")
    assert json.loads((run.stage("train") / "metrics.json").read_text())["plan.bytes"] == (
        read_frontier(found[search]).points[0].num_bytes
    )
    assert json.loads((run.stage("evaluate") / "metrics.json").read_text())["recall_at_10"] > 0.3


def test_equal_seeds_find_equal_widths(found: dict[str, Path], tmp_path: Path) -> None:
    given = (*GIVEN, *files(tmp_path), f"search.compression_ratio={RATIO}", "search.frontier=[2]")
    again = search_folder(do("search", tmp_path / "runs", *given, "search=optembed", *QUICK["optembed"]))
    for point in read_frontier(found["optembed"]).points:
        assert read_choice(again / point.plan) == read_choice(found["optembed"] / point.plan)


def test_pairs_are_held_out_of_train_and_everybody_keeps_one() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randint(1, count, (400,), generator=generator) for count in (30, 20))
    known = Interactions.of(users, items, num_users=30, num_items=20)
    rest, held = held_pairs(known, 0.2, seed=1)
    assert torch.equal(rest.joined(held).keys, known.keys) and rest.num_pairs + held.num_pairs == known.num_pairs
    assert held.num_pairs == pytest.approx(0.2 * known.num_pairs, rel=0.2)
    assert bool((rest.user_degrees[known.user_degrees > 0] > 0).all())
    assert bool((rest.item_degrees[known.item_degrees > 0] > 0).all())
    assert torch.equal(held_pairs(known, 0.2, seed=1)[1].keys, held.keys)
    assert not torch.equal(held_pairs(known, 0.2, seed=2)[1].keys, held.keys)
    with pytest.raises(DataError, match=r"search\.holdout=0\.001"):
        held_pairs(known, 0.001, seed=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("search.budget_mib=0.00001",), r"below the floor of [\d,]+"),
        (
            ("search.compression_ratio=4", "retrieval/start=fast_rp", "retrieval.start.embedding_dim=8"),
            "retrieval.start",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(given: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        do("search", tmp_path / "runs", *GIVEN, *files(tmp_path), "search=dnis", *given)


def test_a_model_without_embeddings_has_none_to_search(tmp_path: Path) -> None:
    given = [*SMALL, *files(tmp_path), "retrieval/model=ease", "search=dnis", "search.compression_ratio=4"]
    with pytest.raises(ConfigError, match="fitted without embeddings"):
        do("search", tmp_path / "runs", *given)
