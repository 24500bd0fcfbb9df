"""Plain, gzip and zstd files as one stream of bytes, in which a truncated file is an error and never a short one."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from recsys.core.errors import DataError

READ_BYTES = 1 << 20
ENDINGS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
"""Of files that begin so, which no text does."""
FOREIGN = {
    b"PK\x03\x04": "is a zip archive. Unpack it, or pack its file with gzip or zstd",
    **{
        b"BZh%d1AY&SY" % level: "is packed with bzip2. Unpack it, or pack it with gzip or zstd"
        for level in range(1, 10)
    },
    b"\xfd7zXZ": "is packed with xz. Unpack it, or pack it with gzip or zstd",
    b"PAR1\x15": "is a Parquet file, read as text. Name it .parquet, or set its kind",
    b"ARROW1\0\0": "is an Arrow file, read as text. Name it .arrow, or set its kind",
    b"\xff\xfe\0\0": "is UTF-32 text. Convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"\xff\xfe": "is UTF-16 text. Convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16 text. Convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
}
"""What is wrong with a text file that begins so, and the way out. Each is more than an id may begin with."""
TAR = slice(257, 262)
"""Where an archive of tar says `ustar`."""
JUDGED_BYTES = 512
NULS = 0.1
"""Share of bytes that are zero, above which they are no text in UTF-8."""


def read_bytes(path: Path) -> Iterator[bytes]:
    """Decompressed content of a text file (`.gz`, `.zst`, else plain) in pieces of roughly `READ_BYTES`.

    Raises:
        DataError: the file cannot be read, is truncated or damaged, or is no text with lines.
    """
    pieces = _pieces(path)
    judged: list[bytes] = []
    while sum(map(len, judged)) < JUDGED_BYTES and (piece := next(pieces, None)) is not None:
        judged.append(piece)
    _check_text(path, b"".join(judged))
    yield from judged
    yield from pieces


def _check_text(path: Path, first: bytes) -> None:
    """Refuse a file that begins as no text with lines does."""
    for start, problem in FOREIGN.items():
        if first.startswith(start):
            raise DataError(f"{path}: {problem}.")
    if first[TAR] == b"ustar":
        raise _archive(path)
    if b"\r" in first.rstrip(b"\r") and b"\n" not in first:
        raise DataError(f"{path}: its lines end with a carriage return alone. Write newlines (tr '\\r' '\\n').")
    if first[:JUDGED_BYTES].count(0) > NULS * len(first[:JUDGED_BYTES]):
        raise DataError(f"{path}: holds zero bytes: UTF-16 text, which needs converting to UTF-8, or no text at all.")


def _archive(path: Path) -> DataError:
    return DataError(f"{path}: is a tar archive. Unpack it, and name the files in it.")


def _pieces(path: Path) -> Iterator[bytes]:
    kind = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if kind == ".zst":
                yield from _zstd_pieces(file)
            elif kind == ".gz":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield from iter(lambda: unzipped.read(READ_BYTES), b"")
            else:
                yield from _plain_pieces(path, file)
    except EOFError as error:
        raise DataError(f"{path}: the file is truncated: its compressed stream ends early. Copy it again.") from error
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: not a readable {path.suffix} file ({error}). Copy it again, or give it the ending of what it is."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from error


def _plain_pieces(path: Path, file: BinaryIO) -> Iterator[bytes]:
    piece = file.read(READ_BYTES)
    if path.suffix.lower() == ".tgz":
        raise _archive(path)
    for start, ending in ENDINGS.items():
        if piece.startswith(start):
            raise DataError(f"{path}: is compressed, and its name does not say so. Name it {path.name}{ending}.")
    while piece:
        yield piece
        piece = file.read(READ_BYTES)


def _zstd_pieces(file: BinaryIO) -> Iterator[bytes]:
    # Not `stream_reader`: it takes the end of a truncated file for the end of the data.
    decompressor, frame = zstandard.ZstdDecompressor(), None
    while data := file.read(READ_BYTES // 8):
        while data:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(data)
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError
