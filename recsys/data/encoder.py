"""`FeatureEncoder`: border tensors to model inputs. One module encodes in ingest and inside an exported file."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import polars as pl
import torch
from torch import Tensor, nn

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest, NumericStatistics
from recsys.core.schema import IdEncoding, NumericTransform, Schema
from recsys.data.derive import Sources
from recsys.ops.hashing import mix64

VOCABULARY_FOLDER = "vocabulary"
LOG_TRANSFORMS = (NumericTransform.LOG1P, NumericTransform.LOG1P_STANDARD)
STANDARD_TRANSFORMS = (NumericTransform.STANDARD, NumericTransform.LOG1P_STANDARD)


class FeatureEncoder(nn.Module):
    """Numeric transforms, vocabulary look-up and truncation, with ATen operators only, so that it scripts as it is.

    All vocabularies lie behind one another in two buffers: TorchScript cannot index a list of buffers.
    """

    # Annotated here, because TorchScript ignores annotations in `__init__` and these lists may be empty.
    categorical_names: list[str]
    num_dense: int
    multi_valued: list[bool]
    weighted: list[bool]
    max_lengths: list[int]
    hashed: list[bool]
    vocabulary_of: list[int]  # by categorical column
    starts: list[int]  # by vocabulary, and one more
    num_oov: list[int]  # by categorical column
    log_mask: Tensor
    missing_mask: Tensor
    mean: Tensor
    std: Tensor
    keys: Tensor
    ids: Tensor

    def __init__(
        self,
        schema: Schema,
        numeric: Mapping[str, NumericStatistics],
        vocabularies: Mapping[str, Tensor],
        bounds: Mapping[str, Tensor],
    ) -> None:
        """Build from training statistics.

        Args:
            numeric: by feature name; read for the transforms that standardise.
            vocabularies: by name of each column with a vocabulary of its own: distinct int64 keys (V,), most frequent
                first. Columns that share one share its memory.
            bounds: of quantile buckets, as `Sources` takes them.
        """
        super().__init__()
        self.sources = Sources(schema, bounds)
        self.num_dense = len(schema.numeric)
        self.categorical_names = [f.name for f in schema.categorical]
        self.multi_valued = [f.multi_valued for f in schema.categorical]
        self.weighted = [bool(f.weights) for f in schema.categorical]
        self.max_lengths = [f.max_length for f in schema.categorical]
        self.hashed = [f.encoding is IdEncoding.HASH for f in schema.categorical]
        self._register_numeric(schema, numeric)
        owners = list(schema.vocabularies)
        owner = {name: columns[0] for name, columns in schema.vocabularies.items()}
        self.num_oov = [owner[f.vocabulary or f.name].num_oov for f in schema.categorical]
        self.vocabulary_of = [owners.index(f.vocabulary or f.name) for f in schema.categorical]
        tables = [vocabularies.get(name, torch.empty(0, dtype=torch.int64)) for name in owners]
        self.starts = [sum(t.numel() for t in tables[:i]) for i in range(len(tables) + 1)]
        orders = [torch.argsort(table) for table in tables]
        none = torch.empty(0, dtype=torch.int64)
        self.register_buffer("keys", torch.cat([none, *(t[o] for t, o in zip(tables, orders, strict=True))]))
        self.register_buffer("ids", torch.cat([none, *(o + 1 for o in orders)]))

    def _register_numeric(self, schema: Schema, numeric: Mapping[str, NumericStatistics]) -> None:
        standard = [f.transform in STANDARD_TRANSFORMS for f in schema.numeric]
        mean = [numeric[f.name].mean if s else 0.0 for f, s in zip(schema.numeric, standard, strict=True)]
        std = [numeric[f.name].std if s else 1.0 for f, s in zip(schema.numeric, standard, strict=True)]
        self.register_buffer("log_mask", torch.tensor([f.transform in LOG_TRANSFORMS for f in schema.numeric]).bool())
        missing = [f.transform is NumericTransform.MISSING for f in schema.numeric]
        self.register_buffer("missing_mask", torch.tensor(missing).bool())
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Encode B rows of border tensors.

        Args:
            features: as `recsys.data.raw.border_tensors` returns them.
        Returns:
            dense float32 (B, num_dense); then for each categorical feature in schema order its ids, int64 (N_f,), and
            its offsets, int64 (B + 1,): row b holds ids[offsets[b]:offsets[b + 1]].
        """
        ids: list[Tensor] = []
        offsets: list[Tensor] = []
        num_rows = 0
        for i, name in enumerate(self.categorical_names):
            keys = self.sources(features, i)
            if self.multi_valued[i]:
                keys, offset = self._truncate(keys, features[name + "__lengths"], self.max_lengths[i])
            else:
                offset = torch.arange(keys.numel() + 1, dtype=torch.int64, device=keys.device)
            ids.append(self._look_up(keys, i))
            offsets.append(offset)
            num_rows = offset.numel() - 1
        return self._dense(features, num_rows), ids, offsets

    def weights(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Weights of the ids that `forward` gives, float32 (N_f,) by categorical feature; (0,) of those without."""
        found: list[Tensor] = []
        for i, name in enumerate(self.categorical_names):
            own = torch.empty(0, dtype=torch.float32)
            if self.weighted[i]:
                own = self._truncate(features[name + "__weights"], features[name + "__lengths"], self.max_lengths[i])[0]
            found.append(own)
        return found

    def _dense(self, features: dict[str, Tensor], num_rows: int) -> Tensor:
        if self.num_dense == 0:
            return torch.zeros((num_rows, 0), dtype=torch.float32, device=self.mean.device)
        raw = torch.stack([self.sources.numbers(features, i) for i in range(self.num_dense)], dim=1)
        scaled = torch.where(self.log_mask, torch.sign(raw) * torch.log1p(torch.abs(raw)), raw)
        # Also infinity becomes "missing": ingest refuses it, but a server has to answer.
        known = torch.isfinite(raw)
        dense = torch.where(known, (scaled - self.mean) / self.std, torch.zeros_like(raw))
        return torch.where(self.missing_mask, torch.logical_not(known).to(raw.dtype), dense)

    def _truncate(self, values: Tensor, lengths: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """The first `max_length` values of each row, and their offsets."""
        kept = torch.clamp(lengths, max=max_length)
        offsets = torch.cat([torch.zeros_like(kept[:0].sum().reshape(1)), torch.cumsum(kept, 0)])
        shift = torch.cumsum(lengths, 0) - lengths - offsets[:-1]
        positions = torch.arange(int(offsets[-1]), dtype=torch.int64, device=values.device)
        return values[positions + torch.repeat_interleave(shift, kept)], offsets

    def _look_up(self, keys: Tensor, feature: int) -> Tensor:
        """Ids of keys, int64 (N,); for a key that the vocabulary lacks 0, or one of the ids behind the vocabulary's."""
        if self.hashed[feature]:
            return keys
        vocabulary = self.vocabulary_of[feature]
        start, end = self.starts[vocabulary], self.starts[vocabulary + 1]
        known = self.keys[start:end]
        at = torch.clamp(torch.searchsorted(known, keys), max=end - start - 1)
        unknown = torch.zeros_like(keys)
        if self.num_oov[feature] > 1:
            unknown = (mix64(keys) & 0x7FFFFFFFFFFFFFFF) % self.num_oov[feature]
            unknown = torch.where(unknown == 0, unknown, unknown + (end - start))
        return torch.where(known[at] == keys, self.ids[start:end][at], unknown)


def vocabulary_path(folder: Path, feature: str) -> Path:
    """File of a column's own vocabulary: columns `key` and `count`, both Int64; the id of line i, from 0, is i + 1."""
    return folder / VOCABULARY_FOLDER / f"{quote(feature, safe='')}.parquet"


def load_encoder(folder: Path) -> FeatureEncoder:
    """The encoder of a dataset folder.

    Raises:
        DataError: the manifest or a vocabulary is missing, damaged, or they do not belong together.
    """
    manifest = Manifest.read(folder)
    vocabularies: dict[str, Tensor] = {}
    for name, (owner, *_) in manifest.schema.vocabularies.items():
        expected = manifest.categorical[name].num_embeddings
        if expected is None:
            continue
        path = vocabulary_path(folder, name)
        try:
            keys = pl.read_parquet(path, columns=["key"])["key"]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path}: not a readable vocabulary ({error}). Run ingest again.") from error
        if len(keys) + owner.num_oov != expected:
            raise DataError(
                f"{path}: {len(keys)} keys, the manifest says {expected - owner.num_oov}. Run ingest again."
            )
        vocabularies[name] = keys.to_torch()
    return FeatureEncoder(manifest.schema, manifest.numeric, vocabularies, manifest.bound_tensors())
