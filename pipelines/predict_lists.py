"""Scoring with a retrieval bundle: a list of items for each row, which names a user or holds a history."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from pipelines.config import PredictConfig
from pipelines.predict_rows import Job, columns_of, plain_reader
from recsys.core.errors import DataError
from recsys.core.schema import KeyType, Schema
from recsys.data.raw import ROW, border_tensors
from recsys.export.retrieval_manifest import ITEMS_NAME, RetrievalManifest

USERS_AT_ONCE = 512
"""Bounds memory: 4 bytes a user and item."""

TOLD = {
    "user": "known to the model",
    "history": "unknown to it, listed for by their histories",
    "frequency": "unknown and without an item that it knows, given the most frequent items",
}
"""Values of `listed_by`, and what is said of them."""


@dataclass(frozen=True, kw_only=True)
class ListJob(Job):
    """Lists `predict.k` items for each row.

    The output has `__row__`, the user's column as given, `items` (keys, or texts of text keys) and `scores`, best
    first, as many as there are, and `listed_by`: what the list was made of.
    """

    item_texts: pl.DataFrame | None  # key, value; None where keys are the items' own numbers

    def origin(self) -> dict[str, str]:
        """As of rows, and how lists are made."""
        return super().origin() | {"k": str(self.config.k), "filter_seen": str(self.config.filter_seen)}

    def scored(self, frame: pl.DataFrame, served: nn.Module) -> pl.DataFrame:
        """Lists of some rows."""
        slices = [*frame.iter_slices(USERS_AT_ONCE)]
        features = [border_tensors(part, self.schema) for part in slices]
        parts = [self._listed(part, each, served) for part, each in zip(slices, features, strict=True)]
        lists = pl.concat(parts).group_by(ROW, maintain_order=True).agg("items", "scores")
        listed_by = pl.concat([_listed_by(served, each) for each in features])
        for kind, count in listed_by.value_counts().iter_rows():
            self.told[TOLD[kind]] += count
        user = self.schema.categorical[0].name
        return (
            frame.select(ROW, user)
            .join(lists, on=ROW, how="left", maintain_order="left")
            .with_columns(pl.col("items", "scores").fill_null([]), listed_by)
        )

    def _listed(self, frame: pl.DataFrame, features: dict[str, Tensor], served: nn.Module) -> pl.DataFrame:
        """One row for each place that is taken."""
        keys, scores = served(features, self.config.k, self.config.filter_seen)
        places = pl.DataFrame(
            {
                ROW: frame[ROW].gather(torch.arange(len(keys)).repeat_interleave(keys.shape[1]).numpy()),
                "items": keys.flatten().numpy(),
                "scores": scores.flatten().numpy(),
            }
        ).filter(pl.col("scores").is_finite())
        if self.item_texts is None:
            return places
        named = places.join(self.item_texts, left_on="items", right_on="key", how="left", maintain_order="left")
        return named.select(ROW, pl.col("value").alias("items"), "scores")


def _listed_by(served: nn.Module, features: dict[str, Tensor]) -> pl.Series:
    """What each list is made of: the user as training knows him, else what he is said to have met, else nothing."""
    known: Any = served.known  # a method of a scripted file, which torch has no types for
    users, _, bounds = known(features)
    kinds = torch.where(users > 0, 0, torch.where(bounds.diff() > 0, 1, 2))
    return pl.Series("listed_by", [*TOLD]).gather(kinds.numpy())


def list_job(bundle: Path, source: Path, config: PredictConfig) -> ListJob:
    """The job of a retrieval bundle.

    Raises:
        DataError: the bundle is damaged, or the input has no column of users.
    """
    manifest = RetrievalManifest.read(bundle)
    texts = None
    if manifest.item.key_type is KeyType.STRING:
        items = pl.read_parquet(bundle / ITEMS_NAME)
        texts = items.select("key", "value") if "value" in items.columns else None
    return ListJob(
        source=source,
        model=manifest.model_path(bundle, config.row_type),
        schema=_present(manifest, source, config),
        config=config,
        item_texts=texts,
    )


def _present(manifest: RetrievalManifest, source: Path, config: PredictConfig) -> Schema:
    """The schema without histories where the input has none."""
    columns = columns_of(source, plain_reader(source, manifest.schema, config))
    if not columns:
        raise DataError(f"{source}: no rows to score. Give a file with at least one row below its header.")
    if manifest.user.name not in columns:
        raise DataError(
            f"{source}: no column {manifest.user.name!r} of users; it has {columns}. Name it so, and a column of what "
            f"each has met {manifest.item.name!r} (a list, or text with {manifest.item.separator!r} between items)."
        )
    if manifest.item.name in columns:
        return manifest.schema
    return replace(manifest.schema, categorical=(manifest.user,))
