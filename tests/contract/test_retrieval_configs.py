"""Every yaml of conf/retrieval states every field of its class at its default, and the run that it composes builds."""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from pipelines.config import load
from recsys.core.component import load_class
from tests.pipelines.world import composed

CONF = Path(__file__).resolve().parents[2] / "conf" / "retrieval"
FILES = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))
OTHER_DEFAULTS = {Path("model/mf.yaml"): {"num_layers"}, Path("start/fast_rp.yaml"): {"embedding_dim"}}
"""Options that are another use of a class, by what they set."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.with_suffix("")))
def test_option_composes_and_holds_the_defaults_of_its_class(file: Path) -> None:
    part, name = file.parent.name, file.stem
    values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / file)))
    config_class = load_class(values.pop("_target_"))
    assert set(values) == {field.name for field in fields(config_class)}
    retrieval = load(composed("retrieval=default", f"retrieval/{part}={name}", "dataset=gowalla", "name=x")).config
    built = getattr(retrieval.retrieval, part)
    assert type(built) is config_class
    default = config_class()
    differing = {key for key in values if getattr(built, key) != getattr(default, key)}
    assert differing == OTHER_DEFAULTS.get(file, set())


def test_the_default_lists_every_key() -> None:
    run = load(composed("retrieval=default", "dataset=gowalla", "name=x"))
    assert run.config.retrieval is not None
    assert set(run.values["retrieval"]) - {"_target_"} | {"start"} == set(
        type(run.config.retrieval).__dataclass_fields__
    )
    assert run.config.retrieval == type(run.config.retrieval)()
