"""Every yaml below `conf/` composes, builds what it names, and lists every key, so that key=value reaches each."""

import dataclasses
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pipelines.config import PredictConfig, load
from recsys.core.component import load_class
from recsys.core.errors import ConfigError
from recsys.core.jsonable import to_json
from recsys.data.ingest import IngestOptions
from recsys.evaluate.compare_config import CompareConfig
from tests.pipelines.world import composed

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = ("dataset", "model", "embedding", "train", "evaluate", "export", "search")
OPTIONS = sorted(
    (group, str(path.relative_to(CONF / group).with_suffix("")))
    for group in GROUPS
    for path in (CONF / group).rglob("*.yaml")
)
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix("")) for path in (CONF / "experiment").rglob("*.yaml")
)
LEFT_OUT = {
    ("dataset", "parquet"): {"separator", "columns", "quoted"},  # of text files
}
"""Keys that mean nothing for an option, so that its yaml does not offer them."""


def mandatory(config: DictConfig) -> list[str]:
    return sorted(OmegaConf.missing_keys(config))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_builds(group: str, option: str) -> None:
    config = composed(f"{group}={option}", "name=x")
    if missing := mandatory(config):
        with pytest.raises(ConfigError, match=rf"{group}\.[\w.]+ has no default. Set it on the command line"):
            load(config)
        assert all(key.startswith(f"{group}.") for key in missing)
        return
    built = getattr(load(config).config, group)
    assert f"{type(built).__module__}.{type(built).__qualname__}" == config[group]["_target_"]


def test_messages_name_a_method_as_the_command_line_does() -> None:
    options = [option for group, option in OPTIONS if group == "embedding"]
    composable = {option: composed(f"embedding={option}", "name=x") for option in options}
    labels = {
        option: load(config).config.embedding.label for option, config in composable.items() if not mandatory(config)
    }
    assert len(labels) >= len(options) - 1 and labels == {option: option for option in labels}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_builds(experiment: str) -> None:
    run = load(composed(f"experiment={experiment}", "seed=3"))
    assert run.config.seed == 3
    assert run.config.name.split("/")[-1].startswith(experiment.split("/")[-1]), "runs of an experiment bear its name"


def absent(cls: type[Any], values: dict[str, Any], where: str) -> Iterator[str]:
    """Keys that a dataclass has and `values` lacks, below it too."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{where}.{field.name}"
        if field.name not in values:
            yield key
            continue
        value = values[field.name]
        if isinstance(value, dict):
            below = load_class(value["_target_"]) if "_target_" in value else hints[field.name]
            kinds = [kind for kind in (below, *typing.get_args(below)) if dataclasses.is_dataclass(kind)]
            for kind in kinds:
                yield from absent(typing.cast(type[Any], kind), value, key)


def option_values(group: str, option: str) -> dict[str, Any]:
    config = composed(f"{group}={option}", "name=x")
    values = OmegaConf.to_container(config[group], resolve=True)
    assert isinstance(values, dict)
    return typing.cast(dict[str, Any], values)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_lists_every_key(group: str, option: str) -> None:
    values = option_values(group, option)
    lacking = set(absent(load_class(values["_target_"]), values, group))
    lacking -= {f"{group}.{name}" for name in LEFT_OUT.get((group, option), set())}
    assert not lacking, (
        f"conf/{group}/{option}.yaml does not list {sorted(lacking)}: they could not be given as key=value"
    )


@pytest.mark.parametrize("group", ["train", "evaluate", "export"])
def test_default_yaml_holds_the_defaults_of_its_dataclass(group: str) -> None:
    values = option_values(group, "default")
    assert getattr(load(composed("name=x")).config, group) == load_class(values["_target_"])()


@pytest.mark.parametrize(
    ("key", "cls"), [("ingest", IngestOptions), ("predict", PredictConfig), ("compare", CompareConfig)]
)
def test_inline_options_hold_the_defaults_of_their_dataclass(key: str, cls: type[Any]) -> None:
    config = composed("name=x")
    values = OmegaConf.to_container(config[key])
    assert isinstance(values, dict)
    assert not list(absent(cls, typing.cast(dict[str, Any], values), key))
    assert getattr(load(config).config, key) == cls()


def test_values_that_stages_record_are_plain() -> None:
    """What goes into stage.json compares equal after a round trip, so that an unchanged run is recognised."""
    run = load(composed("name=x"))
    assert to_json(run.values) == run.values
    assert not any(isinstance(value, Enum) for value in run.values["train"]["run_on"].values())
