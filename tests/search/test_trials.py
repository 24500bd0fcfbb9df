"""Searches by trials, on scores whose best setting is known: what they try, what they find, what they count."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.search.choice import Choice
from recsys.search.greedy import GreedyConfig
from recsys.search.method import TrialSearch
from recsys.search.plans import plan_of
from recsys.search.proportions import Setting, Way, choice_of
from recsys.search.random_search import RandomSearchConfig
from recsys.search.tpe import TpeConfig
from tests.search.test_fit import BUDGETS
from tests.search.world import FEATURES, FULL_BYTES, SPACE

BUDGET = FULL_BYTES // 3
SEARCHES: list[type[TrialSearch]] = [RandomSearchConfig, TpeConfig, GreedyConfig]


class Scores:
    """Prefers wide rows of `item`, and shared rows of `user`; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Choice] = []

    def __call__(self, choice: Choice) -> Iterator[float]:
        self.asked.append(choice)
        yield choice.width(1) + 3.0 * (choice.features[0][0].shared_rows > 0)


@pytest.mark.parametrize("ways", [(way,) * 4 for way in Way] + [(Way.HASH, Way.WIDTH, Way.ROWS, Way.WIDTH)])
def test_every_way_meets_every_budget_and_its_plan_takes_those_bytes(ways: tuple[Way, ...]) -> None:
    for budget in BUDGETS[::4]:
        choice = choice_of(SPACE, budget, Setting(0.3, (0.0, 1.0, -1.0, 0.0), ways))
        row = 4 * max(feature.embedding_dim for feature in FEATURES)
        assert budget - max(0.01 * budget, row) <= choice.num_bytes <= budget
        plan = plan_of(SPACE, choice)
        assert plan.num_bytes == choice.num_bytes
        PlannedEmbeddingBagCollection(plan)  # remaps, tables and combiners fit


def test_ways_do_what_they_say() -> None:
    choice = choice_of(SPACE, BUDGET, Setting(0.0, (0.0,) * 4, (Way.HASH, Way.WIDTH, Way.ROWS, Way.WIDTH)))
    (shared,) = choice.features[0]
    assert shared.size == 40 and 0 < shared.shared_rows < 40 and len(shared.columns) == 8
    assert all(piece.columns for piece in choice.features[1])
    first, *_, last = choice.features[2]
    assert len(first.columns) == 8 and not last.columns


@pytest.mark.parametrize("search", SEARCHES)
def test_trials_are_counted_start_uniform_and_are_not_made_twice(search: type[TrialSearch], tmp_path: Path) -> None:
    scores, config = Scores(), search(budget_mib=1.0, trials=7)
    found = config.find(SPACE, scores, BUDGET, seed=3, storage=tmp_path / "storage")
    assert 1 < len(scores.asked) <= 7
    assert scores.asked[0] == choice_of(SPACE, BUDGET, Setting.first(SPACE, list(Way)))
    assert found.score == max(next(Scores()(choice)) for choice in scores.asked)
    again = Scores()
    assert config.find(SPACE, again, BUDGET, seed=3, storage=tmp_path / "storage") == found
    assert not again.asked


def test_greedy_climbs_until_nothing_helps(tmp_path: Path) -> None:
    scores = Scores()
    found = GreedyConfig(budget_mib=1.0, trials=500).find(SPACE, scores, BUDGET, seed=0, storage=tmp_path / "storage")
    assert len(scores.asked) < 500
    assert found.choice.features[0][0].shared_rows > 0
    assert found.choice.width(1) > scores.asked[0].width(1) + 2


def test_tpe_finds_more_than_random_at_equal_trials(tmp_path: Path) -> None:
    def mean(search: type[TrialSearch]) -> float:
        config = search(budget_mib=1.0, trials=20)
        values = [
            config.find(SPACE, Scores(), BUDGET, seed=100 * seed, storage=tmp_path / f"{search.__name__}{seed}").score
            for seed in range(2)
        ]
        return sum(value or 0.0 for value in values) / len(values)

    assert mean(TpeConfig) > mean(RandomSearchConfig)


def test_ways_are_named_once() -> None:
    with pytest.raises(ConfigError, match=r"search\.ways"):
        GreedyConfig(budget_mib=1.0, ways=[Way.HASH, Way.HASH])
