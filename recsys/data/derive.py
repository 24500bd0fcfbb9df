"""Keys and numbers that features read: those of a raw column, or made of others, alike in ingest and when served."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys.core.schema import MISSING_KEY, Derivation, Schema
from recsys.ops.hashing import mix64

KINDS = tuple(Derivation)
"""In the order of the numbers below: TorchScript sees no module's constants."""


class Sources(nn.Module):
    """Reads border tensors, with ATen operators only."""

    # Annotated here, because TorchScript ignores annotations in `__init__` and these lists may be empty.
    numbers_of: list[str]  # by numeric feature: the raw number, or the later time
    since: list[str]  # by numeric feature: the earlier time; "": it is a number
    fills: list[float]  # by numeric feature: what a missing number is read as; NaN: it stays missing
    kinds: list[int]  # by categorical feature, place in `KINDS`
    keys_of: list[list[str]]  # by categorical feature
    starts: list[int]  # by categorical feature, and one more: its bounds in `bounds`
    missing: int
    bounds: Tensor

    def __init__(self, schema: Schema, bounds: Mapping[str, Tensor]) -> None:
        """Build from the schema and what was fitted.

        Args:
            bounds: float32, ascending, by name of each feature of quantile buckets: where its buckets but the first
                begin.
        """
        super().__init__()
        self.missing = MISSING_KEY
        sources = [feature.sources for feature in schema.numeric]
        self.numbers_of = [names[0] for names in sources]
        self.since = [names[1] if len(names) > 1 else "" for names in sources]
        self.fills = [float("nan") if feature.fill is None else feature.fill for feature in schema.numeric]
        self.kinds = [KINDS.index(feature.derive) for feature in schema.categorical]
        self.keys_of = [list(feature.sources) for feature in schema.categorical]
        none = torch.empty(0, dtype=torch.float32)
        parts = [bounds.get(feature.name, none) for feature in schema.categorical]
        self.starts = [sum(part.numel() for part in parts[:i]) for i in range(len(parts) + 1)]
        self.register_buffer("bounds", torch.cat([none, *parts]))

    def forward(self, features: dict[str, Tensor], feature: int) -> Tensor:
        """Keys of a categorical feature, int64 (N,): (B,) but for a multi-valued one.

        Args:
            features: as `recsys.data.raw.border_tensors` returns them.
            feature: its place in the schema.
        """
        kind, names = self.kinds[feature], self.keys_of[feature]
        first = features[names[0]]
        if kind == 1:
            return self._bucket(first, feature)
        if kind == 2:
            hour = torch.div(torch.remainder(first, 86_400), 3_600, rounding_mode="floor")
            return torch.where(first == self.missing, first, hour)
        if kind == 3:
            # 1970 began on a Thursday; Monday is 0.
            weekday = torch.remainder(torch.div(first, 86_400, rounding_mode="floor") + 3, 7)
            return torch.where(first == self.missing, first, weekday)
        for name in names[1:]:
            first = mix64(mix64(first) + features[name])
        return first

    def _bucket(self, numbers: Tensor, feature: int) -> Tensor:
        bounds = self.bounds[self.starts[feature] : self.starts[feature + 1]]
        bucket = torch.searchsorted(bounds, numbers, right=True)
        return torch.where(torch.isfinite(numbers), bucket, torch.full_like(bucket, self.missing))

    def numbers(self, features: dict[str, Tensor], feature: int) -> Tensor:
        """Raw numbers of a numeric feature, float32 (B,), filled or NaN where missing; times apart in seconds."""
        found = self._numbers(features, feature)
        fill = self.fills[feature]
        return found if fill != fill else torch.where(torch.isnan(found), torch.full_like(found, fill), found)

    def _numbers(self, features: dict[str, Tensor], feature: int) -> Tensor:
        later = features[self.numbers_of[feature]]
        if self.since[feature] == "":
            return later
        earlier = features[self.since[feature]]
        missing = (later == self.missing) | (earlier == self.missing)
        apart = (later - earlier).to(torch.float32)
        return torch.where(missing, torch.full_like(apart, float("nan")), apart)
