"""Every yaml of conf/model states the class's defaults, builds, runs with and without numeric columns, and scripts."""

from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.component import load_class
from recsys.models.ctr import ModelConfig
from tests.models.world import build, inputs

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "model").glob("*.yaml"))
REFERENCE = Path(__file__).resolve().parents[1] / "models" / "reference"


def read(file: Path) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))


def load(file: Path) -> ModelConfig:
    """The configuration, checked as a pipeline checks it."""
    values = read(file)
    structured = OmegaConf.structured(load_class(values.pop("_target_")))
    return cast(ModelConfig, OmegaConf.to_object(OmegaConf.merge(structured, values)))


def test_there_are_models() -> None:
    assert {"lr", "deepfm", "dcnv2", "dlrm"} <= {file.stem for file in FILES}


def test_every_model_has_a_reference_and_a_form_of_each_class() -> None:
    assert {file.stem for file in REFERENCE.glob("[!_]*.py")} == {file.stem for file in FILES}
    for file in FILES:
        forms = import_module(f"tests.models.reference.{file.stem}").FORMS
        assert forms and {type(form) for form in forms.values()} == {load_class(read(file)["_target_"])}


def test_references_share_no_code_with_the_models() -> None:
    """Of `recsys` they name configurations and their enums alone."""
    for file in REFERENCE.glob("[!_]*.py"):
        for name, named in vars(import_module(f"tests.models.reference.{file.stem}")).items():
            if getattr(named, "__module__", "").startswith("recsys"):
                assert named is ModelConfig or is_dataclass(named) or issubclass(named, Enum), f"{file.name}: {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_yaml_states_every_field_at_its_default(file: Path) -> None:
    values = read(file)
    config_class = load_class(values.pop("_target_"))
    assert load(file) == config_class()
    assert set(values) == set(config_class.__dataclass_fields__)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("num_dense", [0, 13])
def test_builds_runs_and_scripts(file: Path, num_dense: int) -> None:
    config = load(file)
    head, arguments = build(config, num_dense), inputs(config, num_dense)
    head(*arguments).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    head.eval()
    logits = head(*arguments)
    assert logits.shape == (6,) and logits.dtype == torch.float32
    torch.testing.assert_close(torch.jit.script(head)(*arguments), logits, rtol=0, atol=1e-5)
