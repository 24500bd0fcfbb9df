"""What an index of item vectors is asked to be, and what it turned out to be."""

from dataclasses import dataclass
from enum import Enum

from recsys.core.errors import ConfigError

CODEWORDS = 256
"""Of one byte of a product-quantised vector; each is trained on an item at least."""


class IndexKind(Enum):
    """How items are found."""

    NONE = "none"  # no index: the exported model's own exact lists alone
    FLAT = "flat"  # all vectors, exactly: 4 d bytes an item
    HNSW = "hnsw"  # a graph of near items over all vectors: 4 d + 8 links bytes an item
    IVF_PQ = "ivf_pq"  # lists of near items, vectors as codes: code_bytes and 8 an item


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What `items.faiss` is, by inner product. Of lower settings come faster searches that find less.

    Source: Malkov and Yashunin, TPAMI 2020 (HNSW); Jégou et al., TPAMI 2011 (IVF-PQ).
    """

    kind: IndexKind = IndexKind.FLAT
    links: int = 32  # HNSW: of an item
    build_effort: int = 200  # HNSW: candidates while it is built
    search_effort: int = 256  # HNSW: candidates of a search
    num_lists: int = 0  # IVF_PQ; 0: four times the root of the number of items
    num_probes: int = 64  # IVF_PQ: lists of a search
    code_bytes: int = 0  # IVF_PQ: of an item, a divisor of the width; 0: half the width
    places: int = 20  # that recall is measured at
    min_recall: float = 0.9  # share of the exact lists that must be found, or the export fails

    def __post_init__(self) -> None:
        for name, least in (
            ("links", 2),
            ("build_effort", 1),
            ("search_effort", 1),
            ("num_lists", 0),
            ("num_probes", 1),
            ("code_bytes", 0),
            ("places", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"export.index.{name}={getattr(self, name)}: must be {least} or more.")
        if not 0 <= self.min_recall <= 1:
            raise ConfigError(f"export.index.min_recall={self.min_recall}: is a share, so it must lie in [0, 1].")

    def code_bytes_of(self, dim: int) -> int:
        """Bytes of an item's code."""
        return self.code_bytes or max(dim // 2, 1)

    def check(self, num_items: int, dim: int | None) -> None:
        """Refuse an index that so many items of so many columns (None: not known yet) cannot have.

        Raises:
            ConfigError: there are too few items, or codes do not divide the columns.
        """
        if self.kind is not IndexKind.IVF_PQ:
            return
        if num_items < CODEWORDS:
            raise ConfigError(
                f"export.index.kind=ivf_pq of {num_items} items: codes are learned from {CODEWORDS} at least. Choose "
                "flat."
            )
        if dim and dim % self.code_bytes_of(dim):
            raise ConfigError(
                f"export.index.code_bytes={self.code_bytes_of(dim)}: each byte stands for as many of the {dim} "
                f"columns. Choose a divisor of {dim}."
            )


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What an index is and does, measured on the file as written; milliseconds of one query on one thread."""

    kind: IndexKind
    file: str
    file_bytes: int
    num_items: int
    dim: int
    settings: dict[str, int]
    places: int
    num_queries: int
    recall: float  # share of the places of exact lists that it finds, mean over queries; ties count as found
    recall_reranked: float  # the same of five times as many results, for who orders them by exact products
    exact_ms: float  # median, of a product with all vectors and a choice of the best
    index_ms: float  # median
    index_p99_ms: float
