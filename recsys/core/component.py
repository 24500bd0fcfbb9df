"""A part of a plan that is stored as JSON and built as a module: dotted class name and keyword arguments."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from recsys.core.errors import ConfigError

PACKAGE_PREFIX = "recsys."


def load_class(target: Any, *, key: str = "_target_") -> type[Any]:
    """Return the class that a dotted name below `recsys.` stands for.

    Raises:
        ConfigError: the name lies outside this package, or names nothing.
    """
    if not isinstance(target, str) or not target.startswith(PACKAGE_PREFIX):
        raise ConfigError(f"{key}={target!r}: only classes below '{PACKAGE_PREFIX}' are built. Name one of those.")
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}={target!r}: no such class ({error}). Check the spelling.") from error
    if not isinstance(found, type):
        raise ConfigError(f"{key}={target!r}: this is no class. Name one of those in {module_name}.")
    return found


@dataclass(frozen=True)
class Component:
    """What to build (`target`) and with what (`params`, JSON values only)."""

    target: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, module_class: type[nn.Module], **params: Any) -> "Component":
        """Describe `module_class(**params)` without building it."""
        return cls(f"{module_class.__module__}.{module_class.__qualname__}", params)

    def build(self) -> nn.Module:
        """Build the module.

        Raises:
            ConfigError: the target is not a module class of this package or does not take these parameters.
        """
        try:
            module = load_class(self.target)(**self.params)
        except TypeError as error:
            raise ConfigError(f"{self.target} cannot be built with {dict(self.params)}: {error}.") from error
        if not isinstance(module, nn.Module):
            raise ConfigError(f"{self.target} is not a torch module, so it cannot be part of a plan.")
        return module
