"""The options: what is refused, and that the yaml is the dataclass."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recsys.core.component import load_class
from recsys.core.errors import ConfigError
from recsys.core.jsonable import build_config
from recsys.evaluate import EvaluateConfig

YAML = Path(__file__).resolve().parents[2] / "conf" / "evaluate" / "default.yaml"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_bins": 0}, "evaluate.num_bins=0: must be 1 or more"),
        ({"num_buckets": 1}, "evaluate.num_buckets=1: must be 2 or more"),
        ({"max_slice_values": 0}, "evaluate.max_slice_values=0"),
        ({"min_slice_rows": -4}, "evaluate.min_slice_rows=-4"),
        ({"slices": ["a", "b", "a"]}, r"evaluate.slices names \['a'\] more than once"),
    ],
)
def test_impossible_values_are_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvaluateConfig(**options)  # type: ignore[arg-type]


def test_yaml_spells_out_every_default() -> None:
    values = OmegaConf.to_container(OmegaConf.load(YAML))
    assert isinstance(values, dict)
    target = str(values.pop("_target_"))
    assert load_class(target) is EvaluateConfig
    assert set(values) == set(OmegaConf.structured(EvaluateConfig))
    assert build_config(EvaluateConfig, values, key="evaluate") == EvaluateConfig()
