"""Every embedding method of `conf/embedding` on the same features, as compressed as it gets: for the benchmarks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.pareto_cells import compose_run
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "embedding"
RATIOS = (10.0, 4.0, 2.0, 1.3)
"""Compression ratios, tried in turn: what a method cannot reach, it refuses."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A method, the ratio that it was given (1: none would do), and its plan for training."""

    name: str
    config: MethodConfig
    ratio: float
    plan: TablePlan


def ranked(name: str, num_ids: int, embedding_dim: int) -> FeatureSpec:
    """A single-valued feature whose id i has about a million / i look-ups."""
    octaves = range((num_ids - 1).bit_length())
    counts = tuple(round(1e6 * min(1.0, (num_ids - 2**k) / 2**k) * 0.7) for k in octaves)
    return FeatureSpec(
        name=name, embedding_dim=embedding_dim, num_embeddings=num_ids, max_length=1, octave_counts=counts
    )


def planned_methods(features: Sequence[FeatureSpec], only: Sequence[str] = ()) -> Iterator[Planned]:
    """Plan the methods called `only`, or all; one that a user must complete (`plan`) is left out, with a line."""
    for name in only or sorted(path.stem for path in FOLDER.glob("*.yaml")):
        try:
            config = compose_run([f"embedding={name}", "name=bench"]).config.embedding
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        yield _most_compressed(name, config, features)


def _most_compressed(name: str, config: MethodConfig, features: Sequence[FeatureSpec]) -> Planned:
    for ratio in RATIOS:
        smaller = replace(config, compression_ratio=ratio)
        try:
            return Planned(name=name, config=smaller, ratio=ratio, plan=smaller.plan(features))
        except ConfigError:
            continue
    return Planned(name=name, config=config, ratio=1.0, plan=config.plan(features))
