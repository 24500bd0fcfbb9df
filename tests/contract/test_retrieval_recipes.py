"""Every model and every loss, trained as its own yaml says but for fewer and larger steps, beats popularity."""

import json
from pathlib import Path

import pytest
import torch

from recsys.core.interactions import Interactions
from recsys.data.interactions import read_interactions, relevant_pairs
from recsys.retrieval.ranking import Relevant, judge, rank
from recsys.retrieval.recommender import Recommender
from tests.pipelines.world import do, make_run
from tests.retrieval.world import lines

CONF = Path(__file__).resolve().parents[2] / "conf" / "retrieval"
OPTIONS = [path for part in ("model", "loss") for path in sorted((CONF / part).glob("*.yaml"))]
# Options of ML-1M are others with other numbers.
CHOICES = [f"{path.parent.name}={path.stem}" for path in OPTIONS if not path.stem.endswith("_ml_1m")]
SHORT = (
    "experiment=graph/gowalla",
    "dataset.validation=0",
    "retrieval.top_k=[10]",
    "train.epochs=12",
    "train.batch_size=64",
    "train.optimizer.table_learning_rate=0.01",
    "train.run_on.num_threads=1",
)
FEWER_NEGATIVES = 50
WEAKER = {
    "model=simgcl": ("retrieval.model.contrast_weight=0.05",),
    "model=xsimgcl": ("retrieval.model.contrast_weight=0.02",),
    "loss=direct_au": ("retrieval.loss.gamma=0.3",),
}
"""What drives nodes apart is meant for graphs of ten thousands: as strong as there it tears few apart."""
USERS, ITEMS, TASTES, K = 160, 120, 4, 10


def skewed_pairs() -> list[tuple[int, int]]:
    """(user, item) of users with one of some tastes, who also take what is popular; 30 draws each."""
    generator = torch.Generator().manual_seed(7)
    popular = 1 / (1 + torch.randperm(ITEMS, generator=generator)).float()
    of_taste = torch.arange(USERS).unsqueeze(1) % TASTES == torch.arange(ITEMS) % TASTES
    drawn = torch.multinomial(popular**0.25 * torch.where(of_taste, 1.0, 0.1), 30, generator=generator)
    return [(user, int(item)) for user, items in enumerate(drawn) for item in items]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...], float]:
    """A folder of results with the data ingested, the overrides, and popularity's recall."""
    folder, found = tmp_path_factory.mktemp("recipes"), skewed_pairs()
    (folder / "train.txt").write_text(lines([pair for number, pair in enumerate(found) if number % 5]))
    (folder / "test.txt").write_text(lines([pair for number, pair in enumerate(found) if number % 5 == 0]))
    given = (*SHORT, f"dataset.train.files=[{folder}/train.txt]", f"dataset.test.files=[{folder}/test.txt]")
    run = do("ingest", folder / "runs", *given)
    known = read_interactions(run.stage("ingest"), ("train",))
    relevant = Relevant.of(*relevant_pairs(run.stage("ingest"), "test"), known)
    lists = rank(Popular(known), relevant.users, known, k=K, users_at_once=50)
    recall = judge(lists, relevant, ks=[K], num_shown=ITEMS).means()[f"recall_at_{K}"].value
    assert recall is not None and recall > 0.1  # and chance about as much
    return folder / "runs", given, recall


class Popular(Recommender):
    def __init__(self, known: Interactions) -> None:
        super().__init__()
        self.degrees = known.item_degrees.float()

    def forward(self, users: torch.Tensor, items: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return self.degrees.repeat(len(users), 1)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_short_training_beats_popularity(choice: str, data: tuple[Path, tuple[str, ...], float]) -> None:
    runs, given, popular = data
    given = (*given, f"retrieval/{choice}", f"name={choice.replace('=', '_')}")
    values = make_run(runs, *given).values["retrieval"]
    if "num_vectors" in values["model"]:
        given = (*given, "retrieval.model.num_vectors=8")
    if values["sampler"]["num_negatives"] > FEWER_NEGATIVES:
        given = (*given, f"retrieval.sampler.num_negatives={FEWER_NEGATIVES}")
    for stage in ("train", "evaluate"):
        run = do(stage, runs, *given, *WEAKER.get(choice, ()))
    found = json.loads((run.stage("evaluate") / "metrics.json").read_text())[f"recall_at_{K}"]
    assert found > 1.2 * popular
