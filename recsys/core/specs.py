"""What a plan speaks of: logical features, physical tables, their types and initial weights."""

import math
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import nn

from recsys.core.errors import ConfigError

ROW_ALIGNMENT = 4
"""FBGEMM trains rows whose width is a multiple of this; narrower tables are padded while they train."""


class Pooling(Enum):
    """How the embeddings of a row's ids become one."""

    SUM = "sum"
    MEAN = "mean"
    WEIGHTED = "weighted"  # their sum, each times the weight that its row gives it
    NONE = "none"  # they stay apart, in order: a sequence


class RowType(Enum):
    """How one table row is stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"  # row-wise: one byte a value, then float32 scale and bias
    INT4 = "int4"  # row-wise: two values a byte, then float16 scale and bias
    INT2 = "int2"  # row-wise: four values a byte, then float16 scale and bias

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int2": 2}[self.value]

    def row_bytes(self, embedding_dim: int) -> int:
        """Bytes of one row of `embedding_dim` values, with the row's scale and bias."""
        scale_and_bias = {8: 8, 4: 4, 2: 4}.get(self.bits, 0)
        return math.ceil(embedding_dim * self.bits / 8) + scale_and_bias

    def saves(self, embedding_dim: int) -> bool:
        """True if a row takes less than as float32; with its scale and bias a narrow one may not."""
        return self.row_bytes(embedding_dim) < RowType.FLOAT32.row_bytes(embedding_dim)


@dataclass(frozen=True, kw_only=True)
class Read:
    """One column looked up in a feature's embeddings, under a name of its own."""

    name: str
    source: str
    pooling: Pooling = Pooling.SUM
    max_length: int | None = None  # ids a row may hold: 1 for a single-valued column, None for no limit


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """A logical embedding feature, as a method plans it.

    `name` is the key of the embedding that comes out; `source` the key of the ids that go in. They differ when one
    column is embedded twice (a linear weight beside an embedding; attention beside representation). `also` names other
    columns with the same vocabulary that read the same embeddings: the items of a history beside the item shown.
    """

    name: str
    embedding_dim: int
    num_embeddings: int | None  # ids lie in [0, num_embeddings); None: hashed keys, any int64
    source: str = ""  # "" means `name`
    pooling: Pooling = Pooling.SUM
    max_length: int | None = None  # ids a row may hold: 1 for a single-valued column, None for no limit
    octave_counts: tuple[int, ...] = ()  # k: training look-ups with id in [2**k, 2**(k+1)); ids rank by frequency
    also: tuple[Read, ...] = ()

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise ConfigError(f"embedding_dim={self.embedding_dim} of feature {self.name!r}: must be 1 or more.")
        if self.num_embeddings is not None and self.num_embeddings < 1:
            raise ConfigError(f"num_embeddings={self.num_embeddings} of feature {self.name!r}: must be 1 or more.")
        if not self.source:
            object.__setattr__(self, "source", self.name)

    @property
    def reads(self) -> tuple[Read, ...]:
        """Every column that is looked up, this feature's own first."""
        own = Read(name=self.name, source=self.source, pooling=self.pooling, max_length=self.max_length)
        return (own, *self.also)

    @property
    def outputs(self) -> "list[FeatureSpec]":
        """A feature for each read, as who uses the embeddings sees them."""
        return [
            replace(self, name=read.name, source=read.source, pooling=read.pooling, max_length=read.max_length, also=())
            for read in self.reads
        ]

    def renamed(self, suffix: str) -> "FeatureSpec":
        """The same columns embedded once more: every read's name ends with `suffix`."""
        also = tuple(replace(read, name=read.name + suffix) for read in self.also)
        return replace(self, name=self.name + suffix, also=also)


class Distribution(Enum):
    """Distribution of initial weights."""

    NORMAL = "normal"
    UNIFORM = "uniform"
    TAILS = "tails"  # a normal distribution without its middle: what lies beyond two standard deviations


@dataclass(frozen=True, kw_only=True)
class Init:
    """Initial weights: N(center, scale), U(center - scale, center + scale) or the tails of a normal distribution."""

    distribution: Distribution = Distribution.NORMAL
    scale: float = 1e-4  # standard deviation (of the tails as they are, not of the whole), or half width
    center: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf or not math.isfinite(self.center):
            raise ConfigError(
                f"init: scale={self.scale}, center={self.center}: both must be finite, and scale 0 or more."
            )

    def fill_(self, weight: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Fill `weight` in place and return it."""
        if self.distribution is Distribution.NORMAL:
            return nn.init.normal_(weight, self.center, self.scale, generator=generator)
        if self.distribution is Distribution.TAILS:
            return _fill_tails(weight, self.center, self.scale, generator)
        return nn.init.uniform_(weight, self.center - self.scale, self.center + self.scale, generator=generator)

    @property
    def deviation(self) -> float:
        """Standard deviation of the weights."""
        return self.scale / math.sqrt(3) if self.distribution is Distribution.UNIFORM else self.scale


TAIL = 2.0
"""Standard deviations where `Distribution.TAILS` begins."""


@torch.no_grad()
def _fill_tails(weight: torch.Tensor, center: float, scale: float, generator: torch.Generator | None) -> torch.Tensor:
    """Fill with values of |z| > TAIL, z standard normal, divided by their own standard deviation, scaled and moved."""
    beyond = math.erfc(TAIL / math.sqrt(2)) / 2
    density = math.exp(-(TAIL**2) / 2) / math.sqrt(2 * math.pi)
    deviation = math.sqrt(1 + TAIL * density / beyond)
    weight.uniform_(-1, 1, generator=generator)
    # The inverse distribution function at a uniform share of one tail, not rejection: that takes any number of rounds.
    size = -torch.special.ndtri((weight.abs() * beyond).clamp_(min=torch.finfo(weight.dtype).tiny))
    return weight.sign_().mul_(size).mul_(scale / deviation).add_(center)


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One physical table. `embedding_dim` is exact; training pads it to `storage_dim`."""

    name: str
    num_embeddings: int  # rows
    embedding_dim: int
    init: Init = Init()
    row_type: RowType = RowType.FLOAT32

    def __post_init__(self) -> None:
        if self.num_embeddings < 1 or self.embedding_dim < 1:
            raise ConfigError(
                f"table {self.name!r} has {self.num_embeddings} rows of width {self.embedding_dim}: "
                "both must be 1 or more."
            )
        if "." in self.name or "@" in self.name:
            raise ConfigError(f"table name {self.name!r} holds '.' or '@', which TorchRec reserves. Rename it.")

    @property
    def storage_dim(self) -> int:
        """Width while training: `embedding_dim` rounded up to what FBGEMM accepts."""
        return math.ceil(self.embedding_dim / ROW_ALIGNMENT) * ROW_ALIGNMENT

    @property
    def num_bytes(self) -> int:
        """Bytes as served, at `row_type`."""
        return self.num_embeddings * self.row_type.row_bytes(self.embedding_dim)

    def narrowed(self, row_type: RowType) -> "TableSpec":
        """This float32 table with rows of that type; as it is where they would not be smaller."""
        return replace(self, row_type=row_type) if row_type.saves(self.embedding_dim) else self
