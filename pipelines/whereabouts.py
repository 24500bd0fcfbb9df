"""Which line of which yaml an error's key stands on."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig

KEY = re.compile(r"(?P<key>[a-z_]+(?:\.\w+|\[\d+\])*)(?:: (?P<inner>\w+)=)?")
"""What an error of the configuration begins with: the path of a key, and maybe the name of one inside it."""

FEATURE = re.compile(r"\b(?:feature|timestamp) '(?P<name>[^']+)'")
"""What an error of a schema names, which stands in one of `SECTIONS` of a data set."""

SECTIONS = ("categorical", "numeric", "timestamps")


def placed(message: str) -> str:
    """The message, behind file, line and column of what it names, if a yaml gives that.

    That is the key that it begins with, or the feature of the schema that it tells of.
    """
    if not HydraConfig.initialized():
        return message
    key, feature = KEY.match(message), FEATURE.search(message)
    path = [*parts_of(key["key"]), *([key["inner"]] if key["inner"] else [])] if key else []
    mark = None
    if len(path) > 1:
        mark = _first_mark(path, _mark)
    elif feature is not None:
        marks = (_first_mark(["dataset", section], partial(_named, name=feature["name"])) for section in SECTIONS)
        mark = next((each for each in marks if each is not None), None)
    return message if mark is None else f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {message}"


def _first_mark(
    path: Sequence[str], look: Callable[[yaml.Node | None, Sequence[str]], yaml.Mark | None]
) -> yaml.Mark | None:
    """What `look` finds in the first of the yamls that may give a key; nothing if the command line gives it."""
    config = HydraConfig.get()
    if _is_given(config, path):
        return None
    for file, inside in _yamls(config, path):
        with file.open() as stream:  # so that marks know its name
            mark = look(yaml.compose(stream), inside)
        if mark is not None:
            return mark
    return None


def parts_of(key: str) -> list[str]:
    """`a.b[2].c` as `a`, `b`, `2`, `c`."""
    return re.findall(r"\w+", key)


def _is_given(config: HydraConf, path: Sequence[str]) -> bool:
    """Whether the command line gives that key, something in it, or what it is in."""
    for override in config.overrides.task:
        name = override.lstrip("+~").partition("=")[0]
        given = parts_of(name)
        if name not in config.runtime.choices and all(a == b for a, b in zip(given, path, strict=False)):
            return True
    return False


def _yamls(config: HydraConf, path: Sequence[str]) -> Iterator[tuple[Path, Sequence[str]]]:
    """Files that may give a key, those first that win, and the key's path in each."""
    choices = config.runtime.choices
    names = [(f"experiment/{choices.get('experiment')}", 0)]
    names += [(f"{group}/{choices[group]}", n) for n in (2, 1) if (group := "/".join(path[:n])) in choices]
    for name, depth in [*names, ("config", 0)]:
        for source in config.runtime.config_sources:
            file = Path(source.path) / f"{name}.yaml"
            if source.schema == "file" and file.is_file():
                yield file, path[depth:]
                break


def _mark(node: yaml.Node | None, path: Sequence[str]) -> yaml.Mark | None:
    """Where the last part of a path stands that the node has, None if it has not even the first."""
    mark: yaml.Mark | None = None
    for part in path:
        at = _inside(node, part)
        if at is None:
            break
        found, node = at
        mark = found.start_mark
    return mark


def _named(node: yaml.Node | None, path: Sequence[str], name: str) -> yaml.Mark | None:
    """Where the entry of this name begins in the list at a path."""
    for part in path:
        at = _inside(node, part)
        node = at[1] if at is not None else None
    for entry in node.value if isinstance(node, yaml.SequenceNode) else []:
        known = _inside(entry, "name")
        if known is not None and known[1].value == name:
            return entry.start_mark
    return None


def _inside(node: yaml.Node | None, part: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The node that names a part, and the part itself."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return node.value[int(part)], node.value[int(part)]
    return None
