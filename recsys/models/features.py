"""Which features a model embeds, and the checks on their widths and on hyper-parameters that models share."""

from collections.abc import Sequence
from dataclasses import replace

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec

LINEAR_SUFFIX = "__linear"
"""Ends the name of a feature whose embedding is its id's weight in the linear part."""


def embedded(categorical: Sequence[FeatureSpec], embedding_dim: int) -> list[FeatureSpec]:
    """The same features, each `embedding_dim` wide."""
    return [replace(spec, embedding_dim=embedding_dim) for spec in categorical]


def linear_weights(categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """The same columns embedded once more, one number an id: its weight in the linear part."""
    return [replace(spec.renamed(LINEAR_SUFFIX), embedding_dim=1) for spec in categorical]


def split_linear(features: Sequence[FeatureSpec], *, model: str) -> tuple[Sequence[FeatureSpec], Sequence[FeatureSpec]]:
    """Halve `embedded(...) + linear_weights(...)`: the embeddings, and the same columns' part in the linear part.

    Raises:
        ConfigError: the second half is not the first in the same order, each name with `LINEAR_SUFFIX`.
    """
    half = len(features) // 2
    vectors, weights = features[:half], features[half:]
    if [spec.name + LINEAR_SUFFIX for spec in vectors] != [spec.name for spec in weights]:
        raise ConfigError(
            f"model {model} got features {[spec.name for spec in features]}: it reads every embedding first, then "
            f"every linear weight (name + {LINEAR_SUFFIX!r}) in the same order. "
            "Keep the order of the configuration's `features`."
        )
    return vectors, weights


def without_linear(features: Sequence[FeatureSpec], *, model: str) -> Sequence[FeatureSpec]:
    """The embeddings of `embedded(...) + linear_weights(...)`; that the others are linear weights is checked.

    Raises:
        ConfigError: as `split_linear`, or a weight is wider than 1.
    """
    vectors, weights = split_linear(features, model=model)
    check_linear(weights, model=model)
    return vectors


def total_width(features: Sequence[FeatureSpec], *, model: str) -> int:
    """Sum of the features' widths.

    Raises:
        ConfigError: there is no feature.
    """
    if not features:
        raise ConfigError(f"model {model} got no categorical feature to embed. Add one to the dataset's schema.")
    return sum(spec.embedding_dim for spec in features)


def equal_width(features: Sequence[FeatureSpec], *, model: str) -> int:
    """The width that all features share.

    Raises:
        ConfigError: there is no feature, or one is as wide as the first is not.
    """
    width = total_width(features[:1], model=model)
    for spec in features:
        if spec.embedding_dim != width:
            raise ConfigError(
                f"embedding_dim={spec.embedding_dim} of feature {spec.name!r}: {model} multiplies embeddings with each "
                f"other, so all must be as wide as {features[0].name!r}, {width}. Plan equal widths (a method that "
                "projects narrow rows to the full width does), or take a model that concatenates, such as dcnv2."
            )
    return width


def check_linear(features: Sequence[FeatureSpec], *, model: str) -> None:
    """Check that every feature is one number wide.

    Raises:
        ConfigError: one is wider.
    """
    for spec in features:
        if spec.embedding_dim != 1:
            raise ConfigError(
                f"embedding_dim={spec.embedding_dim} of feature {spec.name!r}: {model} reads it as the weight of a "
                "linear part, so it must be 1. Plan it 1 wide."
            )


def check_at_least(key: str, value: int, smallest: int) -> None:
    """Check a count.

    Raises:
        ConfigError: it is below `smallest`.
    """
    if value < smallest:
        raise ConfigError(f"{key}={value}: must be {smallest} or more.")


def check_units(key: str, units: Sequence[int]) -> None:
    """Check the widths of an MLP's hidden layers.

    Raises:
        ConfigError: there is none, or one is below 1.
    """
    if not units or min(units) < 1:
        raise ConfigError(
            f"{key}={list(units)}: needs one hidden layer or more, each 1 or more wide, such as [400, 400]."
        )


def check_dropout(key: str, dropout: float) -> None:
    """Check a share of units to drop.

    Raises:
        ConfigError: it lies outside [0, 1).
    """
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"{key}={dropout}: the share of units to drop must be 0 or more and below 1.")
