"""The schema: what each raw column means and how it becomes a model input."""

import math
from dataclasses import dataclass
from enum import Enum

from recsys.core.errors import ConfigError
from recsys.core.labels import NUMBER_COLUMNS, PREDICTION_COLUMNS, LabelKind, score_columns
from recsys.core.specs import Pooling

MISSING_KEY = -(2**63)
"""Key that stands for a missing categorical value: null, empty or `MISSING_TEXT`; it is a category like any other."""

MISSING_TEXT = "(missing)"
"""Text of a missing value where there must be one: in a history, which is as long in every column."""


class KeyType(Enum):
    """How a raw categorical value becomes a 64-bit key."""

    STRING = "string"  # xxh64 of the UTF-8 bytes, seed 0, reinterpreted as signed
    INTEGER = "integer"  # the value itself


class IdEncoding(Enum):
    """How a key becomes a logical id."""

    VOCABULARY = "vocabulary"  # ids by descending training frequency; 0 is out-of-vocabulary
    HASH = "hash"  # the key is the id: no vocabulary, any int64


class NumericTransform(Enum):
    """Applied to a raw number; a missing value (NaN) becomes 0 afterwards."""

    IDENTITY = "identity"
    LOG1P = "log1p"  # sign(x) * log(1 + |x|)
    STANDARD = "standard"  # (x - mean) / std, fitted on train
    LOG1P_STANDARD = "log1p_standard"  # log1p, then standard
    MISSING = "missing"  # 1 where the number is missing, else 0


class Derivation(Enum):
    """How the key of a categorical feature comes of the raw columns `of`."""

    NONE = "none"  # it is the value of one column
    QUANTILE = "quantile"  # number of the bucket that a number falls into; bounds fitted on train
    HOUR = "hour"  # of a timestamp, 0 to 23, in UTC
    WEEKDAY = "weekday"  # of a timestamp, Monday is 0, in UTC
    CROSS = "cross"  # the values of several single-valued categorical features together


class TimeForm(Enum):
    """How a raw column says a time."""

    ISO = "iso"  # dates, datetimes, or ISO 8601 text; in UTC where it names no zone
    SECONDS = "seconds"  # whole numbers, since 1970
    MILLISECONDS = "milliseconds"
    PATTERN = "pattern"  # text (or digits) of a strptime pattern, in UTC


@dataclass(frozen=True, kw_only=True)
class Timestamp:
    """A raw column of times, which features are made of; itself no model input."""

    name: str
    form: TimeForm = TimeForm.ISO
    pattern: str = ""  # of PATTERN: `%Y%m%d%H`

    def __post_init__(self) -> None:
        if (self.form is TimeForm.PATTERN) != bool(self.pattern):
            raise ConfigError(
                f"timestamp {self.name!r} has form {self.form.name} and pattern {self.pattern!r}: form PATTERN needs a "
                "pattern, the others take none."
            )


@dataclass(frozen=True, kw_only=True)
class NumericFeature:
    """One dense input column: a raw number, or the seconds between two timestamps."""

    name: str
    transform: NumericTransform = NumericTransform.LOG1P_STANDARD
    of: tuple[str, ...] = ()  # a raw number; or a timestamp and an earlier one, for an age; (): the column `name`
    fill: float | None = None  # what a missing number is read as; None: it becomes 0 after the transform

    def __post_init__(self) -> None:
        if self.fill is not None and (not math.isfinite(self.fill) or self.transform is NumericTransform.MISSING):
            raise ConfigError(
                f"fill={self.fill} of feature {self.name!r} with transform={self.transform.name}: it must be finite, "
                "and nothing is missing once it is filled. Leave one of both out."
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """Raw columns that it is made of."""
        return self.of or (self.name,)


@dataclass(frozen=True, kw_only=True)
class CategoricalFeature:
    """One column of ids; with a `separator` (or a list column in Parquet) a row may hold any number of them."""

    name: str
    derive: Derivation = Derivation.NONE
    of: tuple[str, ...] = ()  # raw columns that the key is derived from; (): the column `name`
    num_buckets: int = 0  # of QUANTILE
    key_type: KeyType = KeyType.STRING
    encoding: IdEncoding = IdEncoding.VOCABULARY
    min_count: int = 1  # keys seen less often in train are out-of-vocabulary
    max_size: int = 0  # keys of the vocabulary, the most frequent ones; 0: no limit
    num_oov: int = 1  # ids that out-of-vocabulary keys share by hash: 0 and, if more than one, those after the last
    multi_valued: bool = False
    separator: str = "|"  # between the values of a multi-valued text column
    max_length: int = 64  # values kept per row when multi-valued; the first ones are kept
    pooling: Pooling = Pooling.SUM
    weights: str = ""  # of WEIGHTED pooling: column with one number for each value, in the same order
    vocabulary: str = ""  # column whose ids and embeddings this one shares, as a history of items does; "": its own

    def __post_init__(self) -> None:
        if self.pooling is Pooling.NONE:
            raise ConfigError(
                f"pooling=NONE of feature {self.name!r}: a schema says how ids are pooled where a model pools them; "
                "models that read sequences leave them apart by themselves. Set SUM, MEAN or WEIGHTED."
            )
        if (self.pooling is Pooling.WEIGHTED) != bool(self.weights) or (self.weights and not self.multi_valued):
            raise ConfigError(
                f"weights={self.weights!r} of feature {self.name!r} with pooling={self.pooling.name}, multi_valued="
                f"{self.multi_valued}: weights are those of the values of a multi-valued feature, which pooling "
                "WEIGHTED sums by. Set both or neither."
            )
        if self.min_count < 1:
            raise ConfigError(f"min_count={self.min_count} of feature {self.name!r}: must be 1 or more.")
        if self.max_length < 1:
            raise ConfigError(f"max_length={self.max_length} of feature {self.name!r}: must be 1 or more.")
        if self.max_size < 0 or self.num_oov < 1:
            raise ConfigError(
                f"max_size={self.max_size}, num_oov={self.num_oov} of feature {self.name!r}: must be 0 or more, and 1 "
                "or more."
            )
        self._check_derivation()

    @property
    def sources(self) -> tuple[str, ...]:
        """Raw columns that it is made of."""
        return self.of or (self.name,)

    def _check_derivation(self) -> None:
        where = f"feature {self.name!r} with derive={self.derive.name}"
        several = len(self.of) > 1 or self.derive is Derivation.CROSS
        if self.derive is Derivation.NONE and self.of:
            raise ConfigError(f"of={list(self.of)} of {where}: name the column itself, or say what to derive of these.")
        if self.derive is not Derivation.NONE and (self.multi_valued or self.vocabulary):
            raise ConfigError(f"{where}: what is derived has one value a row and a vocabulary of its own.")
        if several and (self.derive is not Derivation.CROSS or len(self.of) < 2):
            raise ConfigError(f"of={list(self.of)} of {where}: a CROSS needs two columns or more, others take one.")
        if (self.derive is Derivation.QUANTILE) != (self.num_buckets > 1):
            raise ConfigError(f"num_buckets={self.num_buckets} of {where}: QUANTILE needs 2 or more, others take none.")
        if self.derive is Derivation.QUANTILE and self.encoding is IdEncoding.HASH:
            raise ConfigError(f"{where}: buckets are few, so they have a vocabulary. Set encoding VOCABULARY.")


def is_bucketed(feature: CategoricalFeature) -> bool:
    """Whether its keys are buckets of a number."""
    return feature.derive is Derivation.QUANTILE


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Columns of one data set. Column names are those of the raw rows; order is the order of model inputs."""

    label: str
    label_kind: LabelKind = LabelKind.CLICK
    other_labels: tuple[str, ...] = ()  # of further tasks, which multi-task models learn beside `label`
    weight: str = ""  # column that says how many rows each counts as, in losses and metrics; "": all count alike
    numeric: tuple[NumericFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    timestamps: tuple[Timestamp, ...] = ()
    passthrough: tuple[str, ...] = ()  # columns copied beside the predictions: group keys, slices, true probabilities

    def __post_init__(self) -> None:
        names = [*self.labels, *(f.name for f in self.numeric), *(f.name for f in self.categorical)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"schema names column(s) {repeated} more than once. Give each column one role.")
        if not self.numeric and not self.categorical:
            raise ConfigError("schema has neither numeric nor categorical features. Name at least one.")
        illegal = [name for name in names if "." in name or "@" in name or "__" in name]
        if illegal:
            raise ConfigError(f"column name(s) {illegal} hold '.', '@' or '__', which table names use. Rename them.")
        if self.other_labels and self.label_kind is LabelKind.NUMBER:
            raise ConfigError(f"other_labels={list(self.other_labels)} beside a label of numbers: several are clicks.")
        nameless = [name for name in self.other_labels if "/" in name or not 0 < len(name.encode()) <= 200]
        if nameless:
            raise ConfigError(f"other_labels {nameless}: reports on them lie in folders of their names. Rename them.")
        self._check_passthrough()
        self._check_vocabularies()
        self._check_sources()

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns of 0 and 1: of the main task, which others come behind."""
        return (self.label, *self.other_labels)

    @property
    def raw_numbers(self) -> tuple[str, ...]:
        """Raw columns that are read as numbers."""
        plain = [f.sources[0] for f in self.numeric if len(f.sources) == 1]
        return tuple(dict.fromkeys([*plain, *(f.sources[0] for f in self.categorical if is_bucketed(f))]))

    @property
    def raw_categories(self) -> tuple[CategoricalFeature, ...]:
        """Features that are raw columns themselves."""
        return tuple(f for f in self.categorical if f.derive is Derivation.NONE)

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """Columns of raw rows that the features are made of: what a model is given."""
        categories = [name for f in self.raw_categories for name in (f.name, f.weights) if name]
        return (*self.raw_numbers, *categories, *(t.name for t in self.input_times))

    @property
    def input_times(self) -> tuple[Timestamp, ...]:
        """Timestamps that features are made of; the others divide rows or order them."""
        features: list[NumericFeature | CategoricalFeature] = [*self.numeric, *self.categorical]
        used = {name for feature in features for name in feature.sources}
        return tuple(timestamp for timestamp in self.timestamps if timestamp.name in used)

    def _check_sources(self) -> None:
        names = [*self.labels, *([self.weight] if self.weight else []), *self.raw_columns]
        inputs = self.input_times
        names += [t.name for t in self.timestamps if t not in inputs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"raw column(s) {repeated} are read in two ways. Give each column one role.")
        single = {f.name for f in self.raw_categories if not f.multi_valued}
        times = {t.name for t in self.timestamps}
        features: list[NumericFeature | CategoricalFeature] = [*self.numeric, *self.categorical]
        for feature in features:
            known, kind = times, "timestamps"
            if isinstance(feature, CategoricalFeature):
                if feature.derive is Derivation.NONE or is_bucketed(feature):
                    continue
                if feature.derive is Derivation.CROSS:
                    known, kind = single, "single-valued categorical features"
            elif len(feature.sources) == 1:
                continue
            unknown = [name for name in feature.sources if name not in known]
            if unknown or (len(feature.sources) > 2 and known is times):
                raise ConfigError(
                    f"feature {feature.name!r} is made of {list(feature.sources)}: these must be {kind} of the schema, "
                    f"which has {sorted(known)}."
                )

    @property
    def vocabularies(self) -> dict[str, tuple[CategoricalFeature, ...]]:
        """The columns of each vocabulary, by the column whose own it is, which comes first."""
        owners = [f for f in self.categorical if not f.vocabulary]
        return {o.name: (o, *(f for f in self.categorical if f.vocabulary == o.name)) for o in owners}

    def _check_vocabularies(self) -> None:
        owners = {f.name: f for f in self.categorical if not f.vocabulary}
        for feature in self.categorical:
            if not feature.vocabulary:
                continue
            owner = owners.get(feature.vocabulary)
            if owner is None:
                raise ConfigError(
                    f"vocabulary={feature.vocabulary!r} of feature {feature.name!r}: no categorical feature of that "
                    f"name has a vocabulary of its own; there are {sorted(owners)}. Name one of them."
                )
            if (feature.key_type, feature.encoding) != (owner.key_type, owner.encoding):
                raise ConfigError(
                    f"feature {feature.name!r} shares the vocabulary of {owner.name!r}, but has key_type="
                    f"{feature.key_type.name}, encoding={feature.encoding.name} where that one has "
                    f"{owner.key_type.name}, {owner.encoding.name}. Give both the same."
                )
            for key, default in (("min_count", 1), ("max_size", 0), ("num_oov", 1)):
                given = getattr(feature, key)
                if given not in (default, getattr(owner, key)):
                    raise ConfigError(
                        f"{key}={given} of feature {feature.name!r}: its keys are counted together with those of "
                        f"{owner.name!r}, whose vocabulary it shares. Set {key} there."
                    )

    def _check_passthrough(self) -> None:
        names = self.passthrough
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"passthrough names column(s) {repeated} more than once. Name each once.")
        own = PREDICTION_COLUMNS if self.label_kind is LabelKind.CLICK else NUMBER_COLUMNS
        written = {*own, *(name for pair in score_columns(self.label_kind, self.labels) for name in pair)}
        reserved = [name for name in names if name in written or name.startswith("__")]
        if reserved:
            raise ConfigError(
                f"passthrough column(s) {reserved}: {sorted(written)} and names that begin with '__' are "
                "those of columns that ingest and evaluate write. Rename the column in the raw rows."
            )
