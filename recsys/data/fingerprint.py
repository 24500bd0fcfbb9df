"""Fingerprints of input files and of how they are read, so that a change of either is noticed."""

import json
from collections.abc import Iterable
from pathlib import Path

import xxhash

from recsys.core.errors import DataError
from recsys.core.jsonable import to_json

READ_BYTES = 1 << 20


def file_fingerprint(path: Path) -> str:
    """xxh64 of a file's bytes, 16 hex digits.

    Raises:
        DataError: the file cannot be read.
    """
    digest = xxhash.xxh64()
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                digest.update(data)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file. Correct the path, or set the environment variable RECSYS_DATA to the folder of the "
            "public data sets if it is a file of one of these."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from error
    return digest.hexdigest()


def fingerprint_of(parts: Iterable[object]) -> str:
    """xxh64 of the canonical JSON of `parts` (dataclasses, lists, numbers, strings), 16 hex digits."""
    text = json.dumps([to_json(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return xxhash.xxh64(text.encode()).hexdigest()
