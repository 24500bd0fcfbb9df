"""Training rows taken out of training: for what chooses by scores, and leaves validation and test alone."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.data.dataset import SPLIT_NAMES
from recsys.data.raw import ROW
from recsys.data.splits import NON_NEGATIVE
from recsys.data.writer import split_of, write_shard
from recsys.ops.hashing import mix64, salt_for


def hold_out(source: Path, target: Path, share: float, *, in_order: bool, seed: int) -> Manifest:
    """Write the training rows of a data set as one of their own: `share` of them its validation split, no test split.

    Vocabularies, statistics and counts stay those of all training rows, so that plans fit both data sets.

    Args:
        source: an ingested data set.
        target: folder of the new one.
        share: of the training rows, above 0 and below 1.
        in_order: hold out the last rows, where rows are in order of time; else rows drawn by a hash of their position.
        seed: of the hash.

    Returns:
        The manifest written.

    Raises:
        DataError: so few rows that one part would be empty.
    """
    manifest = Manifest.read(source)
    train, done = manifest.splits["train"], 0
    written = []
    for number, (file, num_rows) in enumerate(zip(train.files, train.file_rows, strict=True)):
        frame = pl.read_parquet(source / file)
        if in_order:
            held = torch.arange(done, done + num_rows) >= round(train.num_rows * (1 - share))
        else:
            hashed = mix64(frame[ROW].to_torch() + salt_for("hold out", 0, seed)) & NON_NEGATIVE
            held = hashed.double() / 2.0**63 < share
        written.append(write_shard(target, number, frame, held.to(torch.int8)))
        done += num_rows
    splits = {name: split_of(parts[name] for parts in written if name in parts) for name in SPLIT_NAMES}
    if not (splits["train"].num_rows and splits["validation"].num_rows):
        raise DataError(
            f"{source}: of {train.num_rows} training rows a share of {share} cannot be held out and leave some. Choose "
            "a share nearer to one half, or give the data set more rows."
        )
    held_out = replace(manifest, splits=splits)
    held_out.write(target)
    return held_out
