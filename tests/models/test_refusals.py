"""Impossible values and widths: each a ConfigError that names the key or the feature."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.ctr import ModelConfig
from recsys.models.dcnv2 import DCNv2Config
from recsys.models.deepfm import DeepFMConfig
from recsys.models.dlrm import DLRMConfig, Interaction
from recsys.models.lr import LRConfig
from tests.models.world import FORMS, columns, columns_for, inputs_for, outputs_of


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRConfig(embedding_dim=10), r"model\.embedding_dim=10: model lr"),
        (lambda: DeepFMConfig(embedding_dim=0), r"model\.embedding_dim=0: must be 1"),
        (lambda: DCNv2Config(num_cross_layers=0), r"model\.num_cross_layers=0"),
        (lambda: DCNv2Config(dropout=1.0), r"model\.dropout=1\.0"),
        (lambda: DeepFMConfig(dropout=float("nan")), r"model\.dropout=nan"),
        (lambda: DeepFMConfig(hidden_units=[]), r"model\.hidden_units=\[\]"),
        (lambda: DLRMConfig(hidden_units=[400, 0]), r"model\.hidden_units=\[400, 0\]"),
        (lambda: DLRMConfig(bottom_units=[-1]), r"model\.bottom_units=\[-1\]"),
    ],
)
def test_impossible_values(make: Callable[[], ModelConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def widened(features: Sequence[FeatureSpec], name: str) -> list[FeatureSpec]:
    return [replace(spec, embedding_dim=7) if spec.name == name else spec for spec in features]


def refusal_of(config: ModelConfig, features: Sequence[FeatureSpec]) -> str:
    """Why `config` does not build over `features`; empty where it does."""
    try:
        config.build(outputs_of(features), 2)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("model", "name"),
    [("deepfm", "f1"), ("deepfm", "f1__linear"), ("dlrm_dot", "f2"), ("lr", "f0")],
)
def test_odd_width_names_the_feature(model: str, name: str) -> None:
    features = widened(FORMS[model].features(columns()), name)
    with pytest.raises(ConfigError, match=f"embedding_dim=7 of feature '{name}'"):
        FORMS[model].build(features, 2)


@pytest.mark.parametrize("model", FORMS)
@pytest.mark.parametrize("position", [1, -1])
def test_an_odd_width_is_refused_by_name_or_works(model: str, position: int) -> None:
    features = FORMS[model].features(columns_for(FORMS[model]))
    name = features[position].name
    odd = widened(features, name)
    refusal = refusal_of(FORMS[model], odd)
    if refusal:
        assert f"embedding_dim=7 of feature {name!r}" in refusal
    else:
        head = FORMS[model].build(outputs_of(odd), 2).eval()
        assert head(*inputs_for(outputs_of(odd), 2, 3)).shape == (3,)


@pytest.mark.parametrize("model", ["dcnv2_parallel", "dcnv2_stacked", "dlrm_cat"])
def test_models_that_concatenate_take_any_width(model: str) -> None:
    FORMS[model].build(widened(FORMS[model].features(columns()), "f1"), 2)


@pytest.mark.parametrize("model", FORMS)
def test_no_feature(model: str) -> None:
    with pytest.raises(ConfigError, match="no categorical feature"):
        FORMS[model].build([], 2)


def test_deepfm_refuses_another_order() -> None:
    features = FORMS["deepfm"].features(columns())
    with pytest.raises(ConfigError, match="Keep the order"):
        FORMS["deepfm"].build(features[::-1], 0)


def test_dlrm_refuses_a_single_vector() -> None:
    with pytest.raises(ConfigError, match="interaction=cat"):
        DLRMConfig().build(DLRMConfig().features(columns((5,))), 0)
    DLRMConfig().build(DLRMConfig().features(columns((5,))), 1)
    cat = DLRMConfig(interaction=Interaction.CAT)
    cat.build(cat.features(columns((5,))), 0)
