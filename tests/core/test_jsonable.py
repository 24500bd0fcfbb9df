import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import build_config, from_json, to_json
from recsys.core.specs import Distribution, Init
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.mixed import MixedConfig
from recsys.embeddings.unified import UnifiedConfig


class Colour(Enum):
    RED = "red"
    LIGHT_BLUE = "light-blue"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size={self.size}: must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    colour: Colour = Colour.RED
    flag: bool = False
    limit: int | None = None
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    parts: list[Inner] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)


FULL = Outer(
    inner=Inner(size=3, rate=1e-4),
    colour=Colour.LIGHT_BLUE,
    flag=True,
    limit=7,
    names=("a", "b"),
    pair=(4, 0.25),
    parts=[Inner(size=1), Inner(size=2)],
    table={"x": 1},
    free={"list": [1, "two", None], "deep": {"y": 2.5}},
)


def test_round_trip() -> None:
    assert from_json(Outer, to_json(FULL)) == FULL
    assert build_config(Outer, to_json(FULL), key="outer") == FULL


def test_defaults_fill_absent_keys() -> None:
    built = build_config(Outer, {"inner": {"size": 3}}, key="outer")
    assert built == Outer(inner=Inner(size=3))


def test_whole_numbers_become_floats_where_the_field_is_one() -> None:
    built = build_config(Outer, {"inner": {"size": 3, "rate": 1}, "pair": [1, 2]}, key="outer")
    assert type(built.inner.rate) is float and type(built.pair[1]) is float and type(built.pair[0]) is int


@pytest.mark.parametrize("spelling", ["light-blue", "LIGHT_BLUE", "light_blue", Colour.LIGHT_BLUE])
def test_enum_by_value_or_name(spelling: object) -> None:
    assert build_config(Outer, {"inner": {"size": 1}, "colour": spelling}, key="outer").colour is Colour.LIGHT_BLUE


# what is changed in a valid config, and what the message must hold: the key, the value, and the way out
REFUSED: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"colur": "red"}, ("top.colur='red'", "no such key", "Did you mean 'colour'?", "'inner'")),
    ({"zzz": 1}, ("top.zzz=1", "no such key", "Outer has [", "'colour'")),
    ({"inner": {"size": 1, "rat": 2.0}}, ("top.inner.rat=2.0", "Did you mean 'rate'?")),
    ({"inner": {}}, ("top.inner.size", "missing", "Inner needs it", "Set it")),
    ({"inner": None}, ("top.inner=None", "mapping", "Inner")),
    ({"inner": [1]}, ("top.inner=[1]", "mapping", "Inner")),
    ({"inner": {"size": 0}}, ("top.inner", "size=0", "1 or more")),
    ({"inner": {"size": "3"}}, ("top.inner.size='3'", "type int")),
    ({"inner": {"size": 3.0}}, ("top.inner.size=3.0", "type int")),
    ({"inner": {"size": True}}, ("top.inner.size=True", "type int")),
    ({"inner": {"size": None}}, ("top.inner.size=None", "type int")),
    ({"inner": {"size": 1, "rate": True}}, ("top.inner.rate=True", "type float")),
    ({"inner": {"size": 1, "rate": "0.1"}}, ("top.inner.rate='0.1'", "type float")),
    ({"inner": {"size": 1, "rate": math.nan}}, ("top.inner.rate=nan", "type float")),
    ({"flag": 1}, ("top.flag=1", "type bool")),
    ({"flag": "true"}, ("top.flag='true'", "type bool")),
    ({"limit": "none"}, ("top.limit='none'", "type int")),
    ({"limit": True}, ("top.limit=True", "type int")),
    ({"colour": "green"}, ("top.colour='green'", "must be one of ['red', 'light-blue']")),
    ({"colour": None}, ("top.colour=None", "must be one of ['red', 'light-blue']")),
    ({"names": "a"}, ("top.names='a'", "list")),
    ({"names": ["a", 2]}, ("top.names[1]=2", "type str")),
    ({"pair": [1]}, ("top.pair=[1]", "2 values")),
    ({"pair": [1, "x"]}, ("top.pair[1]='x'", "type float")),
    ({"parts": {"size": 1}}, ("top.parts", "list")),
    ({"parts": [{"size": 1}, {"size": "x"}]}, ("top.parts[1].size='x'", "type int")),
    ({"table": [1]}, ("top.table=[1]", "mapping")),
    ({"table": {"x": "y"}}, ("top.table.x='y'", "type int")),
    ({"table": {3: 1}}, ("top.table", "3", "type str")),
]


@pytest.mark.parametrize(("change", "parts"), REFUSED)
def test_refused_with_key_value_and_fix(change: dict[str, object], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        build_config(Outer, {"inner": {"size": 3}} | change, key="top")
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(("change", "parts"), REFUSED)
def test_stored_values_are_checked_alike(change: dict[str, object], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        from_json(Outer, to_json(FULL) | change)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Outer)])
def test_stored_value_needs_every_field(name: str) -> None:
    data = to_json(FULL)
    del data[name]
    with pytest.raises(DataError, match=rf"Outer\.{name} is missing.*another version"):
        from_json(Outer, data)


def test_target_chooses_the_class() -> None:
    data = {"_target_": "recsys.embeddings.hash.HashConfig", "seed": 3, "init": {"distribution": "uniform"}}
    built = build_config(MethodConfig, data, key="embedding")  # type: ignore[type-abstract]
    assert built == HashConfig(seed=3, init=Init(distribution=Distribution.UNIFORM))
    assert build_config(HashConfig, {"seed": 3}, key="embedding") == HashConfig(seed=3)


def test_nested_targets() -> None:
    unified = {"_target_": "recsys.embeddings.unified.UnifiedConfig", "lookups": {"C1": 2}}
    data = {
        "_target_": "recsys.embeddings.mixed.MixedConfig",
        "default": {"_target_": "recsys.embeddings.full.FullConfig"},
        "assignments": [{"features": ["C1"], "method": unified}],
    }
    built = build_config(MethodConfig, data, key="embedding")  # type: ignore[type-abstract]
    assert isinstance(built, MixedConfig) and built.default == FullConfig()
    assert built.assignments[0].method == UnifiedConfig(lookups={"C1": 2})


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("os.system", ("embedding.default._target_='os.system'", "below 'recsys.'")),
        ("subprocess.Popen", ("'subprocess.Popen'", "below 'recsys.'")),
        ("recsysx.Thing", ("'recsysx.Thing'", "below 'recsys.'")),
        ("recsys.embeddings.full.FullConfg", ("FullConfg", "no such class", "spelling")),
        ("recsys.embeddings.ful.FullConfig", ("recsys.embeddings.ful", "no such class", "spelling")),
        ("recsys.core.specs.Init", ("embedding.default._target_='recsys.core.specs.Init'", "must be a MethodConfig")),
        ("recsys.embeddings.method.full_table", ("full_table", "no class")),
        ("recsys.embeddings.hash", ("recsys.embeddings.hash", "no class")),
        ("recsys.embeddings.method.MethodConfig", ("MethodConfig", "embedding.default._target_", "abstract")),
        (7, ("embedding.default._target_=7", "below 'recsys.'")),
        (None, ("embedding.default._target_=None", "below 'recsys.'")),
    ],
)
def test_target_that_is_refused(target: object, parts: tuple[str, ...]) -> None:
    data = {"_target_": "recsys.embeddings.mixed.MixedConfig", "default": {"_target_": target}}
    with pytest.raises(ConfigError) as error:
        build_config(MethodConfig, data, key="embedding")  # type: ignore[type-abstract]
    assert all(part in str(error.value) for part in parts), error.value


def test_a_choice_without_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"embedding\._target_ is missing.*MethodConfig"):
        build_config(MethodConfig, {"seed": 1}, key="embedding")  # type: ignore[type-abstract]
