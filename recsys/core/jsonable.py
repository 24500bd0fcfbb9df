"""Frozen dataclasses from and to plain values, by their type hints: for configs, schema, manifest, plan."""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from recsys.core.component import load_class
from recsys.core.errors import ConfigError, DataError

T = TypeVar("T")
TARGET = "_target_"


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


def with_target(config: Any) -> dict[str, Any]:
    """A config dataclass as `build_config` reads it; what it holds in turn must not need a `_target_` of its own."""
    return {TARGET: f"{type(config).__module__}.{type(config).__qualname__}", **to_json(config)}


def from_json(cls: type[T], data: Any) -> T:
    """Rebuild a dataclass written by `to_json`; every field must be there.

    Raises:
        DataError: a field is missing or unknown, or a value does not fit its type.
    """
    try:
        return typing.cast(T, _Reader(all_fields=True).read(cls, data, cls.__name__))
    except ConfigError as error:
        raise DataError(f"{error} (Was it written by another version?)") from error


def build_config(cls: type[T], data: Any, *, key: str) -> T:
    """Build a config dataclass from plain values; `_target_` may name a subclass, absent fields take their defaults.

    Args:
        cls: the dataclass, or a base class of what `_target_` names.
        data: nested dicts and lists, as a yaml file holds them.
        key: where `data` stands in the whole config, for messages.

    Raises:
        ConfigError: unknown key, wrong type, missing or impossible value; the message names key, value and choices.
    """
    return typing.cast(T, _Reader(all_fields=False).read(cls, data, key))


def has_field(cls: type[Any], path: Sequence[str]) -> bool:
    """True if a config of this class may hold a value at `path`, names from outside in."""
    if not path:
        return True
    if typing.get_origin(cls) in (tuple, list) and path[0].isdigit():
        return has_field(typing.get_args(cls)[0], path[1:])
    if not dataclasses.is_dataclass(cls) or path[0] not in {f.name for f in dataclasses.fields(cls) if f.init}:
        return False
    hint = typing.get_type_hints(cls)[path[0]]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    return has_field(hint, path[1:])


class _Reader:
    def __init__(self, *, all_fields: bool) -> None:
        self._all_fields = all_fields

    def read(self, hint: Any, data: Any, where: str) -> Any:
        if isinstance(hint, type) and isinstance(data, Mapping) and TARGET in data:
            hint, data = self._target(hint, data, where)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._dataclass(hint, data, where)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._enum(hint, data, where)
        if getattr(hint, "_is_protocol", False):
            raise ConfigError(f"{where}={data!r}: must be a mapping with {TARGET}, the class of this option.")
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return None if data is None else self.read(next(a for a in args if a is not type(None)), data, where)
        if origin in (tuple, list):
            return self._sequence(origin, args, data, where)
        if origin is not None and issubclass(origin, Mapping):
            if not isinstance(data, Mapping):
                raise ConfigError(f"{where}={data!r}: must be a mapping.")
            return {
                self._plain(args[0], k, f"{where} key"): self.read(args[1], v, f"{where}.{k}") for k, v in data.items()
            }
        return self._plain(hint, data, where)

    def _target(self, hint: type[Any], data: Mapping[str, Any], where: str) -> tuple[type[Any], Mapping[str, Any]]:
        cls = load_class(data[TARGET], key=f"{where}.{TARGET}")
        # Any class fits a protocol here: its methods are what the type checker holds it to.
        if hint is not Any and not getattr(hint, "_is_protocol", False) and not issubclass(cls, hint):
            raise ConfigError(f"{where}.{TARGET}={data[TARGET]!r}: must be a {hint.__name__}.")
        return cls, {key: item for key, item in data.items() if key != TARGET}

    def _dataclass(self, cls: type[Any], data: Any, where: str) -> Any:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where}={data!r}: must be a mapping with the keys of {cls.__name__}.")
        if inspect.isabstract(cls):
            raise ConfigError(
                f"{where}.{TARGET} is missing or abstract: {cls.__name__} has several kinds. Name one of them."
            )
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
        for name in data:
            if name not in fields:
                near = difflib.get_close_matches(str(name), fields, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise ConfigError(
                    f"{_below(where, name)}={data[name]!r}: no such key. {hint}{cls.__name__} has {sorted(fields)}."
                )
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if name not in data and (required or self._all_fields):
                raise ConfigError(f"{_below(where, name)} is missing, and {cls.__name__} needs it. Set it.")
        hints = typing.get_type_hints(cls)
        values = {name: self.read(hints[name], item, _below(where, name)) for name, item in data.items()}
        try:
            return cls(**values)
        except ConfigError as error:
            message = str(error)
            named = not where or message.startswith((f"{where}.", f"{where}:", f"{where} "))
            raise ConfigError(message if named else f"{where}: {message}") from error

    def _enum(self, cls: type[Enum], data: Any, where: str) -> Enum:
        for member in cls:
            if data in (member, member.value) or (isinstance(data, str) and data.lower() == member.name.lower()):
                return member
        raise ConfigError(f"{where}={data!r}: must be one of {[member.value for member in cls]}.")

    def _sequence(self, origin: type[Any], args: tuple[Any, ...], data: Any, where: str) -> Any:
        if isinstance(data, str) or not isinstance(data, (list, tuple)):
            raise ConfigError(f"{where}={data!r}: must be a list. Of one value it is [{data}].")
        open_ended = origin is list or args[-1] is Ellipsis
        if not open_ended and len(data) != len(args):
            raise ConfigError(f"{where}={data!r}: must hold {len(args)} values.")
        hints = [args[0]] * len(data) if open_ended else args
        return origin(self.read(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(hints, data, strict=True)))

    def _plain(self, hint: Any, data: Any, where: str) -> Any:
        if hint is Any:
            return data
        if hint is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        fits = isinstance(data, hint) and (hint is bool or not isinstance(data, bool))
        if not fits or (isinstance(data, float) and math.isnan(data)):
            raise ConfigError(f"{where}={data!r}: must be of type {hint.__name__}.")
        return data


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
