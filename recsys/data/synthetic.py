"""A Criteo-like generator with a known answer: every row carries the best probability that any model could give it.

The logit of a row is a sum of planted parts, each a deterministic function of hashed values, so nothing is stored and
any row can be made by itself:
* numeric: a linear and a quadratic effect of each standardised log value, as it is written to the file;
* ids: one effect per id;
* pairs: a factorisation machine, the inner products of latent vectors of all pairs of a row's ids.
Ids are drawn from a bounded power law (the first ones are frequent), then written as hashed text. Labels are drawn from
the probability, which is kept in the column `bayes_probability`: its AUC is the Bayes-optimal one. If asked for,
some of the clicks convert, by a logit that is half the click's and half effects of ids of its own.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, NumericFeature, Schema
from recsys.core.specs import Pooling
from recsys.data.dataset import RawTable, SplitConfig
from recsys.data.made import Made, pieces_of
from recsys.data.readers import ParquetReader
from recsys.ops.hashing import mix64, salt_for

CHUNK_ROWS = 65_536
PILOT_ROWS = 65_536
MAX_TAGS = 5
TAGS = "tags"
BAYES = "bayes_probability"
CONVERSION = "conversion"
CONVERSION_SHARE = 0.5  # of the variance of the logit that a click converts by: the click's own
LATENT_DIM = 2
LEARNABLE_IDS = 100  # columns with more weigh less
MISSING_SHARES = (0.0, 0.0, 0.05, 0.2)  # of columns in turn


@dataclass(frozen=True, kw_only=True)
class SyntheticDataset:
    """Generated rows: label, I1…, C1…, multi-valued `tags`, and `bayes_probability`; `conversion` if it has a rate."""

    name: str = "synthetic"
    num_rows: int = 120_000
    num_numeric: int = 13
    num_categorical: int = 26
    max_cardinality: int = 20_000  # of the largest column; the others descend to 4 in equal ratios
    zipf_exponent: float = 1.5  # above 0; the k-th id has a probability near k ** -zipf_exponent
    positive_rate: float = 0.25
    conversion_rate: float = 0.0  # of clicks: the share with the second label, `conversion`; 0: there is no such label
    signal: float = 1.35  # standard deviation of the logit; 1.35 gives a Bayes-optimal AUC near .80
    pair_share: float = 0.35  # of the logit's variance that only pairs of ids explain
    min_count: int = 5  # values seen less often in train are out-of-vocabulary
    seed: int = 2021
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        for name, least in {"num_rows": 10, "num_numeric": 1, "num_categorical": 2, "max_cardinality": 4}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: must be {least} or more.")
        if not 0 < self.positive_rate < 1 or not 0 <= self.pair_share < 1 or not 0 <= self.conversion_rate < 1:
            raise ConfigError(
                f"dataset.positive_rate={self.positive_rate}, dataset.pair_share={self.pair_share}, "
                f"dataset.conversion_rate={self.conversion_rate}: all are shares, the first above 0 and below 1, the "
                "others from 0 to below 1."
            )
        if self.zipf_exponent <= 0 or self.signal <= 0:
            raise ConfigError(
                f"dataset.zipf_exponent={self.zipf_exponent}, dataset.signal={self.signal}: both must be above 0."
            )

    def inputs(self) -> tuple[Path, ...]:
        """None: every row is a function of this config."""
        return ()

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the rows to `folder/raw` as Parquet and return them."""
        generator = _Generator(self)
        pieces = pieces_of(self.num_rows, CHUNK_ROWS, generator.frame)
        files = Made(folder, self, max_rejected=max_rejected).files(pieces, num_rows=self.num_rows)
        return RawTable(
            name=self.name, schema=generator.schema(), files=files, reader=ParquetReader(), split=self.split
        )


class _Generator:
    """The rows of one config, any piece of them at a time."""

    def __init__(self, config: SyntheticDataset) -> None:
        self._config = config
        self.numeric = [f"I{i + 1}" for i in range(config.num_numeric)]
        self.categorical = [f"C{i + 1}" for i in range(config.num_categorical)]
        ratio = (config.max_cardinality / 4) ** (1 / max(config.num_categorical - 1, 1))
        sizes = [round(4 * ratio**i) for i in range(config.num_categorical)]
        # Large and small columns alternate, as in Criteo, so that no model can profit from their order.
        self._sizes = [*sizes[1::2][::-1], *sizes[::2]]
        # Only the smallest quarter of the columns interacts: pairs of rarer ids could not be learned from few rows.
        self._pair_size = sorted(sizes)[max(config.num_categorical // 4, 2) - 1]
        self._scales, self._bias = self._calibrate()
        self._conversion = (1.0, 1.0, 0.0)  # scales of the click's logit and of the own effects, and the bias
        if config.conversion_rate:
            self._conversion = self._calibrate_conversion()

    def schema(self) -> Schema:
        """The schema of the rows."""
        tags = CategoricalFeature(name=TAGS, multi_valued=True, max_length=MAX_TAGS, pooling=Pooling.MEAN)
        return Schema(
            label="label",
            other_labels=(CONVERSION,) if self._config.conversion_rate else (),
            numeric=tuple(NumericFeature(name=name) for name in self.numeric),
            categorical=(
                *(CategoricalFeature(name=name, min_count=self._config.min_count) for name in self.categorical),
                tags,
            ),
            passthrough=(BAYES, f"{BAYES}_{CONVERSION}") if self._config.conversion_rate else (BAYES,),
        )

    def frame(self, rows: Tensor) -> pl.DataFrame:
        """These rows, int64 (B,)."""
        numbers, ids, tags = self._numbers(rows), self._ids(rows), self._tags(rows)
        logit = _weighted(self._scales, self._parts(numbers, ids, tags)) + self._bias
        probability = torch.sigmoid(logit)
        label = (self._uniform(rows, "label") < probability).to(torch.int8)
        columns = [pl.Series("label", label.numpy())]
        if self._config.conversion_rate:
            own, of_click, bias = self._conversion
            converts = torch.sigmoid(own * self._own_effects(ids) + of_click * logit + bias)
            conversion = label * (self._uniform(rows, CONVERSION) < converts)
            columns.append(pl.Series(CONVERSION, conversion.numpy()))
            columns.append(pl.Series(f"{BAYES}_{CONVERSION}", (probability * converts).numpy()))
        for name, values in zip(self.numeric, numbers, strict=True):
            columns.append(pl.Series(name, values.numpy()).fill_nan(None).cast(pl.Int64))
        for name, values in zip(self.categorical, ids, strict=True):
            columns.append(self._text(values, name))
        columns.append(self._joined_tags(tags))
        columns.append(pl.Series(BAYES, probability.numpy()))
        return pl.DataFrame(columns)

    def _salt(self, name: str) -> int:
        return salt_for(name, 0, self._config.seed)

    def _uniform(self, rows: Tensor, name: str) -> Tensor:
        """Independent numbers in (0, 1), float64, shape of `rows`; a hash, so that no row depends on the pieces."""
        return (((mix64(rows + self._salt(name)) >> 11) & (2**53 - 1)).double() + 0.5) * 2.0**-53

    def _normal(self, keys: Tensor, name: str) -> Tensor:
        normal: Tensor = torch.special.ndtri(self._uniform(keys, name))
        return normal

    def _numbers(self, rows: Tensor) -> list[Tensor]:
        """Whole numbers of a log-normal, float64, NaN where missing."""
        columns: list[Tensor] = []
        for i, name in enumerate(self.numeric):
            values = torch.floor(torch.exp(1.2 * self._normal(rows, name) + 1.0 + i % 4))
            values[self._uniform(rows, f"{name} missing") < MISSING_SHARES[i % 4]] = math.nan
            columns.append(values)
        return columns

    def _ids(self, rows: Tensor) -> list[Tensor]:
        """Ids from 1, int64, 0 where missing."""
        columns: list[Tensor] = []
        for i, (name, size) in enumerate(zip(self.categorical, self._sizes, strict=True)):
            ids = self._zipf(self._uniform(rows, name), size)
            ids[self._uniform(rows, f"{name} missing") < MISSING_SHARES[i % 4]] = 0
            columns.append(ids)
        return columns

    def _zipf(self, uniform: Tensor, size: int) -> Tensor:
        """Ids 1..size by inverting the continuous power law between 1 and size + 1."""
        s = self._config.zipf_exponent
        if abs(s - 1) < 1e-9:
            return torch.exp(uniform * math.log(size + 1)).long().clamp(1, size)
        power: Tensor = (1 + uniform * ((size + 1) ** (1 - s) - 1)) ** (1 / (1 - s))
        return power.long().clamp(1, size)

    def _tags(self, rows: Tensor) -> Tensor:
        """0 to MAX_TAGS ids a row, int64 (B, MAX_TAGS), 0 where there is none."""
        columns = [self._zipf(self._uniform(rows, f"tag {i}"), 200) for i in range(MAX_TAGS)]
        count = (self._uniform(rows, "number of tags") * (MAX_TAGS + 1)).long()
        return torch.stack(columns, 1) * (torch.arange(MAX_TAGS) < count.unsqueeze(1))

    def _parts(self, numbers: list[Tensor], ids: list[Tensor], tags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The planted logit before scaling: of numbers, of single ids, of pairs of ids; float64 (B,) each."""
        rows = ids[0].numel()
        numeric, single = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
        total, squares = torch.zeros(rows, LATENT_DIM).double(), torch.zeros(rows).double()
        for i, (name, values) in enumerate(zip(self.numeric, numbers, strict=True)):
            z = ((torch.log1p(values) - 1.0 - i % 4) / 1.2).nan_to_num(0.0).clamp(-3, 3)
            weights = self._normal(torch.arange(2), f"{name} weights")
            numeric += weights[0] * z + weights[1] * (z * z - 1) / math.sqrt(2)
        for name, size, values in zip(self.categorical, self._sizes, ids, strict=True):
            # Large columns weigh less, as most of their ids are too rare to be learned from.
            single += self._normal(values, f"{name} effect") * min(1.0, (LEARNABLE_IDS / size) ** 0.5)
            if size <= self._pair_size:
                latent = self._latent(values, name)
                total += latent
                squares += (latent * latent).sum(1)
        effects = self._normal(tags.reshape(-1), "tags effect").view_as(tags) * (tags > 0)
        single += 2 * effects.sum(1) / (tags > 0).sum(1).clamp(min=1)
        return numeric, single, ((total * total).sum(1) - squares) / 2

    def _latent(self, ids: Tensor, name: str) -> Tensor:
        return torch.stack([self._normal(ids, f"{name} latent {i}") for i in range(LATENT_DIM)], 1)

    def _calibrate(self) -> tuple[list[float], float]:
        """Weights of the parts and the bias that give the config's signal and rate, from rows that are not kept."""
        rows = torch.arange(-PILOT_ROWS, 0)
        parts = self._parts(self._numbers(rows), self._ids(rows), self._tags(rows))
        # NumPy's sums: torch's differ in the last digits with the number of threads.
        rest = 1 - self._config.pair_share
        shares = (0.6 * rest, 0.4 * rest, self._config.pair_share)
        scales = [
            self._config.signal * math.sqrt(s) / float(p.numpy().std()) for s, p in zip(shares, parts, strict=True)
        ]
        logit = _weighted(scales, parts)
        return scales, _bias(logit, torch.ones_like(logit), self._config.positive_rate)

    def _own_effects(self, ids: list[Tensor]) -> Tensor:
        """The planted logit, before scaling, by which clicks of these ids convert; float64 (B,)."""
        total = torch.zeros(ids[0].numel(), dtype=torch.float64)
        for name, size, values in zip(self.categorical, self._sizes, ids, strict=True):
            total += self._normal(values, f"{name} conversion") * min(1.0, (LEARNABLE_IDS / size) ** 0.5)
        return total

    def _calibrate_conversion(self) -> tuple[float, float, float]:
        """Scales of the own effects and of the click's logit, and the bias, that give signal and rate among clicks."""
        rows = torch.arange(-PILOT_ROWS, 0)
        numbers, ids, tags = self._numbers(rows), self._ids(rows), self._tags(rows)
        click, own = _weighted(self._scales, self._parts(numbers, ids, tags)) + self._bias, self._own_effects(ids)
        of_click, of_own = (
            self._config.signal * math.sqrt(share) / float(part.numpy().std())
            for share, part in ((CONVERSION_SHARE, click), (1 - CONVERSION_SHARE, own))
        )
        logit = of_own * own + of_click * click
        return of_own, of_click, _bias(logit, torch.sigmoid(click), self._config.conversion_rate)

    def _text(self, ids: Tensor, name: str) -> pl.Series:
        """Eight hex digits that hide the rank of an id; null where missing."""
        ranks = pl.DataFrame({"id": ids.numpy()})
        known = ranks.unique(maintain_order=True)
        hashed = (mix64(known["id"].to_torch() + self._salt(f"{name} text")) & 0xFFFFFFFF).tolist()
        texts = pl.Series("text", [f"{number:08x}" for number in hashed])
        table = known.with_columns(pl.when(pl.col("id") > 0).then(texts).alias(name))
        return ranks.join(table, on="id", how="left", maintain_order="left")[name]

    def _joined_tags(self, tags: Tensor) -> pl.Series:
        """`t7|t31`, empty where there is none."""
        texts = [pl.Series(f"{i}", column.contiguous().numpy()) for i, column in enumerate(tags.t())]
        frame = pl.DataFrame(texts).select(pl.when(pl.all() > 0).then(pl.format("t{}", pl.all())))
        return frame.select(pl.concat_str(pl.all(), separator="|", ignore_nulls=True).alias(TAGS)).to_series()


def _bias(logit: Tensor, weights: Tensor, rate: float) -> float:
    """What added to logits makes their mean probability, by weight, this rate."""
    low, high, total = -50.0, 50.0, float(weights.numpy().sum())
    for _ in range(60):
        middle = (low + high) / 2
        above = float((torch.sigmoid(logit + middle) * weights).numpy().sum()) / total > rate
        low, high = (low, middle) if above else (middle, high)
    return low


def _weighted(scales: list[float], parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return parts[0] * scales[0] + parts[1] * scales[1] + parts[2] * scales[2]
