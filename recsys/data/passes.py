"""What ingest does with shards: find statistics, encode. The results are files, the same whoever makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.jsonable import to_json
from recsys.data.dataset import RawChunk, RawTable, Shard
from recsys.data.encoder import FeatureEncoder
from recsys.data.faults import Rejected
from recsys.data.fitting import ShardFit
from recsys.data.splits import Assign
from recsys.data.state import State, put_json
from recsys.data.writer import encoded_frame, write_shard

FIT, ENCODE = "fit", "encode"
"""Names of the passes in the state."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Two passes over shards of a table, into the folder of a data set."""

    table: RawTable
    folder: Path
    state: State
    assign: Assign
    num_rows: int  # of all shards
    chunk_rows: int
    max_rejected: float

    def chunks(self, shards: Sequence[Shard]) -> Iterator[RawChunk]:
        """The rows of consecutive shards."""
        return self.table.chunks(shards, self.chunk_rows, strict=self.max_rejected == 0)

    def fit(self, shards: Sequence[Shard]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Write the statistics of consecutive shards, and the rows left out; (number, these rows) when each is done."""
        rejected = Rejected(self.folder, num_rows=self.num_rows, limit=self.max_rejected)
        for number, chunks in groupby(self.chunks(shards), key=lambda chunk: chunk.shard):
            found = ShardFit(self.table.schema)
            for chunk in chunks:
                rejected.add(number, chunk.rejected)
                found.update(chunk, self.assign(chunk))
            rejected.write(number)
            found.save(self.state.stem(FIT, number))
            yield number, rejected.of(number)

    def encode(self, shards: Sequence[Shard], encoder: FeatureEncoder) -> Iterator[tuple[int, pl.DataFrame]]:
        """Write the encoded rows of consecutive shards; (number, an empty frame) when each is done."""
        schema = self.table.schema
        for number, chunks in groupby(self.chunks(shards), key=lambda chunk: chunk.shard):
            frames: list[pl.DataFrame] = []
            codes: list[Tensor] = []
            for chunk in chunks:
                frames.append(encoded_frame(chunk.frame, schema, encoder))
                codes.append(self.assign(chunk))
            parts = write_shard(self.folder, number, pl.concat(frames, rechunk=True), torch.cat(codes))
            put_json(self.state.stem(ENCODE, number).with_suffix(".json"), to_json(parts))
            yield number, pl.DataFrame()
