"""`manifest.json` of a bundle: what is inside, where it came from, and whether the files are whole."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import DataError
from recsys.core.jsonable import from_json, to_json
from recsys.core.plan import TablePlan
from recsys.core.schema import Schema
from recsys.core.specs import RowType
from recsys.export.border import BorderTensor, border_tensors

BUNDLE_MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A file of a bundle, as it was written."""

    file: str
    file_bytes: int
    sha256: str


def model_path(folder: Path, models: Mapping[str, StoredModel], row_type: RowType) -> Path:
    """Path of the model with that row type, after checking that the file is the one that was exported.

    Args:
        folder: of the bundle.
        models: by value of `RowType`.

    Raises:
        DataError: there is none, or the file was truncated or changed.
    """
    if row_type.value not in models:
        raise DataError(f"{folder}: no {row_type.value} model; there are {sorted(models)}. Export with that row type.")
    known = models[row_type.value]
    path = folder / known.file
    if not path.is_file():
        raise DataError(f"{path}: no such file, though the manifest names it. Export again, or copy the whole folder.")
    size = path.stat().st_size
    if size != known.file_bytes or file_sha256(path) != known.sha256:
        raise DataError(
            f"{path}: damaged, {size:,} bytes where {known.file_bytes:,} were exported, or other content: not the "
            "file that was exported. Copy the bundle again, or export again."
        )
    return path


@dataclass(frozen=True, kw_only=True)
class ModelFile(StoredModel):
    """One exported model.

    `file_bytes` is the sum of plan, head and encoder, and of what holds them: at most 48 KiB, and 1/2 KiB for each
    table, feature and tensor in the file. That is code (about 600 bytes a table, 400 a feature), zip headers (about 300
    bytes a tensor, an entry `data/<number>` of its own), and buffers that a plan recomputes, such as salts of hashes.
    Networks in place of tables are many small tensors: 27 features of `dhe` take 135 kB, of `full` 75 kB.
    """

    plan: TablePlan
    plan_bytes: int  # tables + remaps + combiners
    table_bytes: int
    remap_bytes: int  # codes, pointers, index arrays
    combiner_bytes: int  # projections, hash networks
    bytes_by_table: dict[str, int]
    head_bytes: int  # the dense part, a calibration map with it
    encoder_bytes: int  # vocabularies (16 bytes an entry) and numeric transforms


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Everything a server or a later stage needs to know about a bundle."""

    format_version: int
    schema: Schema
    schema_fingerprint: str
    inputs: tuple[BorderTensor, ...]
    outputs: tuple[str, ...]
    labels: tuple[str, ...]  # what outputs tell of: of one they are (B,), of several (B, T) in this order
    models: dict[str, ModelFile]  # by value of RowType
    versions: dict[str, str]
    lineage: Mapping[str, Any]  # as the caller gives it: data, training; `calibration` where probabilities have one

    def write(self, folder: Path) -> None:
        """Write `manifest.json`."""
        (folder / BUNDLE_MANIFEST_NAME).write_text(json.dumps(to_json(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "BundleManifest":
        """Read `manifest.json`.

        Raises:
            DataError: absent, damaged, or of another version.
        """
        path = folder / BUNDLE_MANIFEST_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, so this is no bundle. Run the export stage, or point to its output folder."
            )
        try:
            values = json.loads(path.read_text())
            if is_retrieval(values):
                raise DataError(f"{path}: of a bundle that lists items for users, and has no rows to score.")
            found = from_json(BundleManifest, values)
            if [tensor.name for tensor in found.inputs] != [tensor.name for tensor in border_tensors(found.schema)]:
                raise DataError(
                    f"{path}: of a version of this project that gave models other inputs of these features. Export "
                    "again with overwrite=true."
                )
            return found
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: not valid JSON ({error}). Export again.") from error

    def check_schema(self, schema: Schema) -> None:
        """Refuse rows of another schema.

        Raises:
            DataError: the schema is not the one this bundle was exported with.
        """
        given = schema_fingerprint(schema)
        if given != self.schema_fingerprint:
            raise DataError(
                f"the bundle was exported with schema {self.schema_fingerprint}, the data has schema {given}. "
                "Its columns or their meaning differ: score with the bundle of this data set, or export again."
            )

    def model_path(self, folder: Path, row_type: RowType) -> Path:
        """Path of the model with that row type, after checking that the file is the one that was exported.

        Raises:
            DataError: there is none, or the file was truncated or changed.
        """
        return model_path(folder, self.models, row_type)


def is_retrieval(values: Mapping[str, Any]) -> bool:
    """Whether the values of a `manifest.json` are those of a bundle that lists items."""
    return "recommender" in values


def schema_fingerprint(schema: Schema) -> str:
    """16 hex digits that change when a column or its meaning changes."""
    return hashlib.sha256(json.dumps(to_json(schema)).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
