"""`manifest.json` of a retrieval bundle: what lists items, for whom, how well it was proven, where it came from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import DataError
from recsys.core.jsonable import from_json, to_json
from recsys.core.schema import CategoricalFeature, Schema
from recsys.core.specs import RowType
from recsys.export.border import BorderTensor
from recsys.export.index_config import IndexReport
from recsys.export.manifest import BUNDLE_MANIFEST_NAME, StoredModel, is_retrieval, model_path

FORMAT_VERSION = 3
ITEMS_NAME = "items.parquet"


@dataclass(frozen=True, kw_only=True)
class RetrievalParity:
    """An exported file against the recommender, over the lists of known users and of the same ones as new users."""

    num_lists: int
    places: int
    max_score_error: float  # largest |difference| / max(1, largest |score|); of narrower models, of the items they list
    different_places: int  # of all lists; items that score alike within that error may change places
    kept: float  # share of the recommender's places whose item, or one that scores as high there, is listed


@dataclass(frozen=True, kw_only=True)
class RetrievalQuality:
    """What evaluation measured of the exact lists of this very model."""

    split: str
    num_users: int  # that metrics are means over
    num_pairs: int
    selected_on: str  # what chose the epoch
    metrics: Mapping[str, float]  # `recall_at_20`, with `.low` and `.high`, and so on


@dataclass(frozen=True, kw_only=True)
class ListModel(StoredModel):
    """One exported file."""

    vector_bytes: int  # of what scores are made of; the rest of the file is keys, and what users have met
    parity: RetrievalParity


@dataclass(frozen=True, kw_only=True)
class RetrievalManifest:
    """Everything that a server or a later stage needs to know."""

    format_version: int
    recommender: str  # class
    schema: Schema  # user, then items of a history
    inputs: tuple[BorderTensor, ...]
    outputs: Mapping[str, str]
    num_users: int
    num_items: int
    models: Mapping[str, ListModel]  # by value of RowType
    plan_bytes: int  # of the embeddings that vectors were made of, as the method serves them; 0 without any
    index: IndexReport | None  # of items.faiss; None without one
    quality: RetrievalQuality | None  # None where export came before evaluation
    versions: Mapping[str, str]
    lineage: Mapping[str, Any]

    @property
    def user(self) -> CategoricalFeature:
        """Column of users."""
        return self.schema.categorical[0]

    @property
    def item(self) -> CategoricalFeature:
        """Column of items."""
        return self.schema.categorical[1]

    def write(self, folder: Path) -> None:
        """Write `manifest.json`."""
        (folder / BUNDLE_MANIFEST_NAME).write_text(json.dumps(to_json(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "RetrievalManifest":
        """Read `manifest.json`.

        Raises:
            DataError: absent, damaged, or of a bundle of another kind.
        """
        path = folder / BUNDLE_MANIFEST_NAME
        try:
            values = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{path}: not readable ({error}). Export the retrieval run, or name its bundle.") from error
        if not is_retrieval(values):
            raise DataError(f"{path}: of a bundle that scores rows, not one that lists items. Leave retrieval out.")
        if values["format_version"] != FORMAT_VERSION:
            raise DataError(f"{path}: of another version of this project. Export again with overwrite=true.")
        return from_json(RetrievalManifest, values)

    def model_path(self, folder: Path, row_type: RowType) -> Path:
        """Path of the model with vectors of that type, after checking that it is the file that was exported.

        Raises:
            DataError: there is none, it is missing, or was truncated or changed.
        """
        return model_path(folder, self.models, row_type)


def lists_items(folder: Path) -> bool:
    """Whether the bundle in a folder lists items; false too where there is none that can be read."""
    try:
        return is_retrieval(json.loads((folder / BUNDLE_MANIFEST_NAME).read_text()))
    except (OSError, json.JSONDecodeError):
        return False
