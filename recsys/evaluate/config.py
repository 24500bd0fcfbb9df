"""What to evaluate."""

from dataclasses import dataclass, field

from recsys.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of one evaluation; columns are those of the predictions frame."""

    group_key: str = ""
    """Column whose groups GAUC averages over (a user id, say); empty leaves GAUC out."""
    slices: list[str] = field(default_factory=list)
    """Columns to break the metrics down by."""
    num_bins: int = 20
    """Points of the reliability curve, equally many rows each."""
    num_buckets: int = 5
    """Quantile buckets of a numeric slice column."""
    max_slice_values: int = 20
    """Values of a categorical slice column shown, most frequent first; the rest is one slice "(other)"."""
    min_slice_rows: int = 100
    """Metrics of a slice with fewer rows are undefined: they would be noise."""

    def __post_init__(self) -> None:
        for name, least in (("num_bins", 1), ("num_buckets", 2), ("max_slice_values", 1), ("min_slice_rows", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)}: must be {least} or more.")
        repeated = sorted({name for name in self.slices if self.slices.count(name) > 1})
        if repeated:
            raise ConfigError(f"evaluate.slices names {repeated} more than once. Name each column once.")
