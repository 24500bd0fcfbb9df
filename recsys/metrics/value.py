"""`MetricValue`: a number, or the reason why there is none. A metric never answers NaN and never crashes on a slice."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricValue:
    """A finite float, or None with the reason. Build it with `MetricValue.of` or `MetricValue.undefined`."""

    value: float | None
    undefined_reason: str = ""

    def __post_init__(self) -> None:
        assert (self.value is None) == bool(self.undefined_reason), "either a value or a reason, not both"
        assert self.value is None or math.isfinite(self.value), f"not finite: {self.value}"

    @classmethod
    def of(cls, value: float) -> "MetricValue":
        """Wrap a computed value; an infinite or NaN one becomes undefined instead of travelling on."""
        return cls(float(value)) if math.isfinite(value) else cls(None, f"the value is not finite ({value})")

    @classmethod
    def undefined(cls, reason: str) -> "MetricValue":
        """No value, because of `reason`: a clause that completes "undefined, because ..."."""
        return cls(None, reason)

    @property
    def defined(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def value_or(self, fallback: float) -> float:
        """The value, or `fallback` where undefined; for monitors that need a number to compare."""
        return fallback if self.value is None else self.value

    def __str__(self) -> str:
        return f"undefined ({self.undefined_reason})" if self.value is None else f"{self.value:.6f}"
