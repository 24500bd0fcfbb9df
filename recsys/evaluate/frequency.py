"""Slices by how often training saw a row's id: head, torso, tail, unseen. Ids rank by training frequency."""

from dataclasses import dataclass
from itertools import accumulate

import polars as pl

from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, IdEncoding, Schema
from recsys.evaluate.sliced import FREQUENCY

HEAD_SHARE, TORSO_SHARE = 0.5, 0.9
"""Of training look-ups: what the head covers at least, and head and torso together."""


@dataclass(frozen=True, kw_only=True)
class FrequencyClasses:
    """Borders between head, torso and tail of one feature's ids, and what each class is called."""

    feature: str
    torso: int
    """First id of the torso; a power of two, as training look-ups are counted by octaves of ids."""
    tail: int
    """First id of the tail."""
    names: tuple[str, ...]
    """Of head, torso, tail and unseen ids."""

    @classmethod
    def of(cls, manifest: Manifest, feature: str) -> "FrequencyClasses":
        """Classes of a categorical feature.

        Raises:
            ConfigError: there is no such feature, or its rows have no one id that ranks by frequency.
        """
        column = check_feature(manifest.schema, feature)
        owner = next(each for each in manifest.schema.categorical if each.name == (column.vocabulary or feature))
        octaves = manifest.categorical[feature].octave_counts
        torso, tail = (_border(octaves, share) for share in (HEAD_SHARE, TORSO_SHARE))
        seen = [sum(octaves[:border]) / max(sum(octaves), 1) for border in (torso, tail)]
        rare = "unseen in training" + (f" or below min_count={owner.min_count}" if owner.min_count > 1 else "")
        names = (
            f"head: ids 1 … {2**torso - 1:,}, {seen[0]:.0%} of training",
            f"torso: ids {2**torso:,} … {2**tail - 1:,}, {seen[1] - seen[0]:.0%}",
            f"tail: ids from {2**tail:,}, {1 - seen[1]:.0%}",
            rare,
        )
        return cls(feature=feature, torso=2**torso, tail=2**tail, names=names)

    @property
    def column(self) -> str:
        """Name of the column of predictions that holds the classes."""
        return FREQUENCY + self.feature

    def of_ids(self, ids: pl.Series) -> pl.Series:
        """Class of each encoded id int64 (N,), as an Enum whose order is head, torso, tail, unseen."""
        head, torso, tail, unseen = (pl.lit(name) for name in self.names)
        rank = pl.col("id")
        known = pl.when(rank >= self.tail).then(tail).when(rank >= self.torso).then(torso).otherwise(head)
        named = pl.when(rank == 0).then(unseen).otherwise(known).cast(pl.Enum(self.names))
        return ids.rename("id").to_frame().select(named.alias(self.column)).to_series()


def check_feature(schema: Schema, feature: str) -> CategoricalFeature:
    """The categorical feature of this name.

    Raises:
        ConfigError: there is none, or its rows have no one id that ranks by frequency.
    """
    found = {column.name: column for column in schema.categorical}
    if feature not in found:
        raise ConfigError(
            f"evaluate.frequency_slices={feature!r}: no such categorical feature; there are {sorted(found)}."
        )
    column = found[feature]
    if column.encoding is IdEncoding.HASH or column.multi_valued:
        why = "a row has several ids" if column.multi_valued else "hashed ids do not rank by frequency"
        raise ConfigError(
            f"evaluate.frequency_slices={feature!r}: {why}. Name a feature with a vocabulary and one value per row."
        )
    return column


def _border(octaves: tuple[int, ...], share: float) -> int:
    """Number of the most frequent octaves that cover `share` of all training look-ups, 1 or more."""
    wanted = share * sum(octaves)
    covering = [k for k, covered in enumerate(accumulate(octaves), start=1) if covered >= wanted]
    return covering[0] if covering and wanted > 0 else max(len(octaves), 1)
