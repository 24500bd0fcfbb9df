"""Frozen dataclasses to JSON values and back, by their type hints: one round trip for schema, manifest and plan."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from recsys.core.errors import DataError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Return `value` as dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: Any) -> T:
    """Rebuild a dataclass written by `to_json`.

    Raises:
        DataError: a field is missing or unknown, or a value does not fit its type.
    """
    return typing.cast(T, _read(cls, data, cls.__name__))


def _read(hint: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _read_dataclass(hint, data, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if data not in [member.value for member in hint]:
            raise DataError(f"{where}={data!r}: must be one of {[member.value for member in hint]}.")
        return hint(data)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _read(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        hints = [args[0]] * len(data) if args[-1] is Ellipsis else args
        return tuple(_read(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(hints, data, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _read(args[1], item, f"{where}.{key}") for key, item in data.items()}
    return _read_plain(hint, data, where)


def _read_dataclass(cls: type[Any], data: Any, where: str) -> Any:
    fields = {f.name for f in dataclasses.fields(cls)}
    if not isinstance(data, Mapping) or set(data) != fields:
        got = sorted(data) if isinstance(data, Mapping) else repr(data)
        raise DataError(f"{where}: expected the fields {sorted(fields)}, got {got}. Was it written by another version?")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _read(hints[name], data[name], f"{where}.{name}") for name in fields})


def _read_plain(hint: Any, data: Any, where: str) -> Any:
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if hint is not Any and not (isinstance(data, hint) and (hint is bool or not isinstance(data, bool))):
        raise DataError(f"{where}={data!r}: must be of type {hint.__name__}.")
    return data
