"""From logical ids to look-ups in physical tables and back: what both collections share."""

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from recsys.core.errors import DataError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan
from recsys.core.specs import Read, TableSpec
from recsys.embeddings.check import check_feature


def lookup_key(feature: str, lookup: int) -> str:
    """Key of one physical look-up in the jagged tensor that the inner collection sees."""
    return f"{feature}__lookup{lookup}"


class Lookups(nn.Module):
    """Remaps and combiners of some features, and the rewriting of logical ids into physical look-ups."""

    def __init__(
        self, entries: tuple[FeaturePlan, ...], tables: dict[str, TableSpec], device: torch.device | None
    ) -> None:
        super().__init__()
        self.entries, self.tables = entries, tables
        # Lists, not dicts: a ModuleDict cannot hold a feature called "type" or "keys".
        self.remaps = nn.ModuleList(entry.remap.build() for entry in entries)
        self.combiners = nn.ModuleList(entry.combiner.build() for entry in entries)
        for entry, remap, combiner in zip(entries, self.remaps, self.combiners, strict=True):
            assert isinstance(remap, Remap) and isinstance(combiner, Combiner)
            check_feature(entry, remap, combiner, tables)
        if device is not None and device.type != "meta":  # what remaps own is part of the plan, and needs its values
            self.to(device)
        self.keys = [
            lookup_key(read.name, t) for e in entries for t in range(len(e.tables)) for read in e.feature.reads
        ]

    def feature_names(self, table: str) -> list[str]:
        """Keys of the look-ups that read this table."""
        return [
            lookup_key(read.name, t)
            for e in self.entries
            for t, name in enumerate(e.tables)
            if name == table
            for read in e.feature.reads
        ]

    def inputs(self, by_source: dict[str, JaggedTensor]) -> list[JaggedTensor]:
        """Ids of each feature: those of its reads one after the other, so that each has R B rows of R reads.

        Raises:
            DataError: the batch lacks a column.
        """
        return [joined([_column(by_source, read) for read in entry.feature.reads]) for entry in self.entries]

    def physical(self, inputs: list[JaggedTensor], by_source: dict[str, JaggedTensor]) -> KeyedJaggedTensor:
        """Rows of all look-ups, keyed by `keys`, of which there is at least one; `inputs` holds each feature's ids."""
        values: list[Tensor] = []
        lengths: list[Tensor] = []
        counts: list[int] = []  # said here, because TorchRec would ask the device for it, and wait
        for remap, jagged, entry in zip(self.remaps, inputs, self.entries, strict=True):
            values.append(remap(jagged.values()).reshape(-1))
            lengths += [jagged.lengths()] * len(entry.tables)
            counts += [by_source[read.source].values().numel() for read in entry.feature.reads] * len(entry.tables)
        return KeyedJaggedTensor(
            keys=self.keys, values=torch.cat(values), lengths=torch.cat(lengths), length_per_key=counts
        )

    def combine(self, number: int, ids: Tensor, looked_up: dict[str, Tensor]) -> Tensor:
        """Embedding of feature `number` from its rows, without the columns that pad them; all reads at once."""
        entry = self.entries[number]
        rows = []
        for t, name in enumerate(entry.tables):
            parts = [looked_up[lookup_key(read.name, t)] for read in entry.feature.reads]
            rows.append((parts[0] if len(parts) == 1 else torch.cat(parts))[:, : self.tables[name].embedding_dim])
        combined: Tensor = self.combiners[number](ids, rows)
        return combined


def joined(columns: list[JaggedTensor]) -> JaggedTensor:
    """The rows of all columns, one column after the other."""
    if len(columns) == 1:
        return columns[0]
    return JaggedTensor(
        values=torch.cat([column.values() for column in columns]),
        lengths=torch.cat([column.lengths() for column in columns]),
    )


def _column(by_source: dict[str, JaggedTensor], read: Read) -> JaggedTensor:
    if read.source not in by_source:
        raise DataError(
            f"the batch has columns {sorted(by_source)}, but not {read.source!r}, which feature {read.name!r} reads. "
            "Give it, with lengths of 0 where rows have no ids."
        )
    return by_source[read.source]
