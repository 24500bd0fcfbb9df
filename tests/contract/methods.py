"""Every method of `conf/embedding` on a few small features, as compressed as it gets there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.errors import ConfigError
from recsys.core.jsonable import build_config
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.embeddings.method import MethodConfig
from tests.embeddings import dense_reference as reference

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "embedding"
METHODS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZES = {"user": 300, "type": 40, "tags": 90, "one": 1}
FEATURES = (
    FeatureSpec(name="user", embedding_dim=12, num_embeddings=300, max_length=1, octave_counts=(90, 80, 70, 60, 50)),
    FeatureSpec(name="type", embedding_dim=12, num_embeddings=40, max_length=1),
    FeatureSpec(name="tags", embedding_dim=12, num_embeddings=90, max_length=4, pooling=Pooling.MEAN),
    FeatureSpec(name="one", embedding_dim=12, num_embeddings=1),
    FeatureSpec(name="user__linear", embedding_dim=1, num_embeddings=300, source="user", max_length=1),
    FeatureSpec(name="tags__linear", embedding_dim=1, num_embeddings=90, source="tags", max_length=4),
)
RATIOS = (4, 2, 1.3)
"""Tried in turn: what a method cannot reach, it refuses."""


def given(method: str) -> MethodConfig | None:
    """The configuration of a yaml; None where it leaves something to the user."""
    data = OmegaConf.load(FOLDER / f"{method}.yaml")
    if OmegaConf.missing_keys(data):
        return None
    values = OmegaConf.to_container(data, resolve=True)
    return build_config(MethodConfig, values, key="embedding")  # type: ignore[type-abstract]


def load(method: str) -> MethodConfig:
    """The configuration of a yaml; the test is skipped where it leaves something to the user."""
    config = given(method)
    if config is None:
        pytest.skip(f"{method}.yaml leaves something to the user")
    return config


@cache
def compressed(method: str, features: tuple[FeatureSpec, ...] = FEATURES) -> MethodConfig:
    """The method with the smallest budget of `RATIOS` that it accepts for these features, or with none."""
    config = load(method)
    for ratio in RATIOS:
        try:
            smaller = replace(config, compression_ratio=ratio)
            smaller.plan(features)
        except ConfigError:
            continue
        return smaller
    return config


def plan_of(method: str, features: tuple[FeatureSpec, ...] = FEATURES) -> TablePlan:
    """The compressed plan of all features."""
    return compressed(method, features).plan(features)


def batch() -> reference.Bags:
    """Twelve rows; the first has no tags."""
    single = reference.random_bags({"user": 300, "type": 40}, 12, seed=0, max_length=1)
    return single | reference.random_bags({"tags": 90, "one": 1}, 12, seed=1, max_length=4)


def collection_of(plan: TablePlan, *, seed: int = 2) -> PlannedEmbeddingBagCollection:
    """A collection with tables of order 1, in evaluation mode."""
    torch.manual_seed(seed)
    collection = PlannedEmbeddingBagCollection(plan).eval()
    reference.randomise(collection, seed=seed)
    return collection


def trained_parts(plan: TablePlan) -> EmbeddingParts:
    """The parts of that collection, as a checkpoint would hold them."""
    collection = collection_of(plan)
    tables = {name: table.detach() for name, table in reference.dense_tables(collection.plan, collection).items()}
    return parts_of(collection, tables)


def planned(config: MethodConfig, features: Sequence[FeatureSpec]) -> tuple[TablePlan | None, str]:
    """The plan, or why there is none."""
    try:
        return config.plan(features), ""
    except ConfigError as error:
        return None, str(error)
