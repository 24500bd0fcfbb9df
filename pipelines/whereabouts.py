"""Which line of which yaml an error of the configuration is about."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig

from recsys.core.errors import ConfigError

KEY = re.compile(r"(?P<key>[a-z_]+(?:\.\w+|\[\d+\])*)(?:: (?P<inner>\w+)=)?")
"""What an error of the configuration begins with: the path of a key, and maybe the name of one inside it."""

FEATURE = re.compile(r"\b(?:feature|timestamp) '(?P<name>[^']+)'")
"""What an error of a schema names, which stands in one of `SECTIONS` of a data set."""

SECTIONS = ("categorical", "numeric", "timestamps")


@dataclass(frozen=True)
class Place:
    """What a yaml says of a path: how many of its parts it has, and the last of these."""

    depth: int
    mark: yaml.Mark
    value: yaml.Node


def placed(error: Exception) -> str:
    """The error's message; behind file, line and column of what it names, where one yaml alone can be meant.

    That is the key that the message begins with, or the feature of the schema that it tells of.
    """
    message = str(error)
    if not isinstance(error, ConfigError) or not HydraConfig.initialized():
        return message
    key, feature = KEY.match(message), FEATURE.search(message)
    path = [*parts_of(key["key"]), *([key["inner"]] if key["inner"] else [])] if key else []
    mark = None
    if len(path) > 1:
        mark = _mark(path)
    elif feature is not None:
        mark = _mark_of_feature(feature["name"])
    return message if mark is None else f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {message}"


def parts_of(key: str) -> list[str]:
    """`a.b[2].c` as `a`, `b`, `2`, `c`."""
    return re.findall(r"\w+", key)


def _mark(path: Sequence[str]) -> yaml.Mark | None:
    """Where a key stands, or the innermost section around it; None if several yamls may be meant, or none."""
    config = HydraConfig.get()
    if _is_given(config, path):
        return None
    found = [
        (len(inside), place)
        for file, inside in _yamls(config, path)
        if (place := _place(_content(file), inside)) is not None
    ]
    whole = [place for length, place in found if place.depth == length]
    if whole and not isinstance(whole[0].value, yaml.MappingNode):
        return whole[0].mark  # it takes the place of what the others say
    either = whole or [place for _, place in found]
    return either[0].mark if len(either) == 1 else None


def _mark_of_feature(name: str) -> yaml.Mark | None:
    """Where the entry of that name begins in a section of the data set."""
    config = HydraConfig.get()
    for path in (["dataset", section] for section in SECTIONS):
        for file, inside in [] if _is_given(config, path) else _yamls(config, path):
            place = _place(_content(file), inside)
            entries = place.value.value if place and isinstance(place.value, yaml.SequenceNode) else []
            for entry in entries:
                named = _step(entry, "name")
                if named is not None and named[1].value == name:
                    mark: yaml.Mark = entry.start_mark
                    return mark
    return None


def _is_given(config: HydraConf, path: Sequence[str]) -> bool:
    """Whether the command line gives that key, something in it, or what it is in."""
    for override in config.overrides.task:
        name = override.lstrip("+~").partition("=")[0]
        given = ["embedding", name] if name == "budget_mib" else parts_of(name)  # as `pipelines.config` gives it on
        if name not in config.runtime.choices and all(a == b for a, b in zip(given, path, strict=False)):
            return True
    return False


def _yamls(config: HydraConf, path: Sequence[str]) -> Iterator[tuple[Path, Sequence[str]]]:
    """Files that may give a key, those first that win, and the key's path in each."""
    choices = config.runtime.choices
    names = [(f"experiment/{choices.get('experiment')}", 0)]
    names += [(f"{group}/{choices[group]}", n) for n in (2, 1) if (group := "/".join(path[:n])) in choices]
    folders = [Path(source.path) for source in config.runtime.config_sources if source.schema == "file"]
    for name, depth in [*names, ("config", 0)]:
        for file in _with_parents(name, folders):
            if len(path) > depth:
                yield file, path[depth:]


def _with_parents(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """The file of an option, and those that its `defaults` build on."""
    file = next((found for folder in folders if (found := folder / f"{name}.yaml").is_file()), None)
    if file is None:
        return
    yield file
    defaults = _step(_content(file), "defaults") if name != "config" else None
    for entry in defaults[1].value if defaults is not None else []:
        if isinstance(entry, yaml.ScalarNode) and entry.value != "_self_":
            parent = entry.value.lstrip("/") if entry.value.startswith("/") else f"{Path(name).parent}/{entry.value}"
            yield from _with_parents(parent, folders)


def _content(file: Path) -> yaml.Node | None:
    with file.open() as stream:  # so that marks know its name
        return yaml.compose(stream)


def _place(node: yaml.Node | None, path: Sequence[str]) -> Place | None:
    """As much of a path as there is; None if not even its first part."""
    found: Place | None = None
    for depth, part in enumerate(path, start=1):
        step = _step(found.value if found else node, part)
        if step is None:
            break
        found = Place(depth, step[0].start_mark, step[1])
    return found


def _step(node: yaml.Node | None, part: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The node that names a part, and the part itself."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return node.value[int(part)], node.value[int(part)]
    return None
