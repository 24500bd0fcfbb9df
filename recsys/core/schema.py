"""The schema: what each raw column means and how it becomes a model input."""

from dataclasses import dataclass
from enum import Enum

from recsys.core.errors import ConfigError
from recsys.core.specs import Pooling

MISSING_KEY = -(2**63)
"""Key that stands for a null or empty categorical value; it is a category like any other."""

LENGTHS_SUFFIX = "__lengths"
"""After a multi-valued feature's name: the border tensor of how many values each row has."""

PREDICTION_COLUMNS = ("label", "logit", "probability")
"""What predictions hold of every row, beside its passthrough columns."""


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


@dataclass(frozen=True, kw_only=True)
class NumericFeature:
    """One dense input column."""

    name: str
    transform: NumericTransform = NumericTransform.LOG1P_STANDARD


@dataclass(frozen=True, kw_only=True)
class CategoricalFeature:
    """One column of ids; with a `separator` (or a list column in Parquet) a row may hold any number of them."""

    name: str
    key_type: KeyType = KeyType.STRING
    encoding: IdEncoding = IdEncoding.VOCABULARY
    min_count: int = 1  # keys seen less often in train are out-of-vocabulary
    multi_valued: bool = False
    separator: str = "|"  # between the values of a multi-valued text column
    max_length: int = 64  # values kept per row when multi-valued; the first ones are kept
    pooling: Pooling = Pooling.SUM
    vocabulary: str = ""  # column whose ids and embeddings this one shares, as a history of items does; "": its own

    def __post_init__(self) -> None:
        if self.pooling is Pooling.NONE:
            raise ConfigError(
                f"pooling=NONE of feature {self.name!r}: a schema says how ids are pooled where a model pools them; "
                "models that read sequences leave them apart by themselves. Set SUM or MEAN."
            )
        if self.min_count < 1:
            raise ConfigError(f"min_count={self.min_count} of feature {self.name!r}: must be 1 or more.")
        if self.max_length < 1:
            raise ConfigError(f"max_length={self.max_length} of feature {self.name!r}: must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Columns of one data set. Column names are those of the raw rows; order is the order of model inputs."""

    label: str
    numeric: tuple[NumericFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    passthrough: tuple[str, ...] = ()  # columns copied beside the predictions: group keys, slices, true probabilities

    def __post_init__(self) -> None:
        names = [self.label, *(f.name for f in self.numeric), *(f.name for f in self.categorical)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"schema names column(s) {repeated} more than once. Give each column one role.")
        if not self.numeric and not self.categorical:
            raise ConfigError("schema has neither numeric nor categorical features. Name at least one.")
        illegal = [name for name in names if "." in name or "@" in name or "__" in name]
        if illegal:
            raise ConfigError(f"column name(s) {illegal} hold '.', '@' or '__', which table names use. Rename them.")
        self._check_passthrough()
        self._check_vocabularies()

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """Columns of raw rows that the features are made of."""
        return (*(f.name for f in self.numeric), *(f.name for f in self.categorical))

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
            if feature.min_count not in (1, owner.min_count):
                raise ConfigError(
                    f"min_count={feature.min_count} of feature {feature.name!r}: its keys are counted together with "
                    f"those of {owner.name!r}, whose vocabulary it shares. Set min_count there."
                )

    def _check_passthrough(self) -> None:
        names = self.passthrough
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"passthrough names column(s) {repeated} more than once. Name each once.")
        reserved = [name for name in names if name in PREDICTION_COLUMNS or name.startswith("__")]
        if reserved:
            raise ConfigError(
                f"passthrough column(s) {reserved}: {list(PREDICTION_COLUMNS)} and names that begin with '__' are "
                "those of columns that ingest and evaluate write. Rename the column in the raw rows."
            )
