"""An index of item vectors for approximate search, and how much of exact search it finds, how fast."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import torch
from torch import Tensor

from recsys.core.errors import ParityError
from recsys.export.index_config import IndexConfig, IndexKind, IndexReport

INDEX_NAME = "items.faiss"
WARM_UP, TIMED = 10, 200
"""Queries before and while one after the other is timed."""
TRAINED_ON = 64
"""Items for each codeword at most: four times as many take four times as long and find little more."""
RERANKED = 5
"""Results for each place, where they are ordered again by exact products."""


def write_index(vectors: Tensor, queries: Tensor, config: IndexConfig, folder: Path) -> IndexReport:
    """Build `items.faiss`, read it back and compare it with exact search.

    Labels are ids: row r of `vectors` is id r + 1, as in `items.parquet`.

    Args:
        vectors: float32 (M, d), of all items but the unknown one.
        queries: float32 (B, d), of users.
        config: of an index, not NONE.
        folder: of the bundle.

    Raises:
        ConfigError: there are too few items, or codes do not divide the width.
        ParityError: too little is found.
    """
    path = folder / INDEX_NAME
    index, settings = _built(vectors.contiguous(), config)
    faiss.write_index(index, str(path))
    stored = faiss.read_index(str(path))
    places = min(config.places, len(vectors))
    exact_ms, index_ms, index_p99_ms = _latencies(stored, vectors, queries, places)
    report = IndexReport(
        kind=config.kind,
        file=INDEX_NAME,
        file_bytes=path.stat().st_size,
        num_items=len(vectors),
        dim=vectors.shape[1],
        settings=settings,
        places=places,
        num_queries=len(queries),
        recall=recall_of(stored, vectors, queries, places),
        recall_reranked=recall_of(stored, vectors, queries, places, depth=RERANKED * places),
        exact_ms=exact_ms,
        index_ms=index_ms,
        index_p99_ms=index_p99_ms,
    )
    if report.recall < config.min_recall:
        raise ParityError(
            f"{INDEX_NAME} ({config.kind.value}, {settings}) finds {report.recall:.4f} of the {places} best items, and "
            f"export.index.min_recall={config.min_recall}. Search more (search_effort, num_probes), keep more of the "
            "vectors (code_bytes), choose export.index.kind=flat, or lower min_recall."
        )
    return report


def _built(vectors: Tensor, config: IndexConfig) -> tuple[faiss.Index, dict[str, int]]:
    """(index, the settings that it was built with)."""
    count, dim = vectors.shape
    ids, rows = torch.arange(1, count + 1).numpy(), vectors.numpy()
    index: faiss.Index
    settings: dict[str, int] = {}
    if config.kind is IndexKind.IVF_PQ:
        index, settings = _ivf_pq(count, dim, config)
        index.train(rows)
    elif config.kind is IndexKind.HNSW:
        graph = faiss.IndexHNSWFlat(dim, config.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = config.build_effort, config.search_effort
        settings = {name: getattr(config, name) for name in ("links", "build_effort", "search_effort")}
        index = faiss.IndexIDMap(graph)
    else:
        index = faiss.IndexIDMap(faiss.IndexFlatIP(dim))
    index.add_with_ids(rows, ids)
    return index, settings


def _ivf_pq(count: int, dim: int, config: IndexConfig) -> tuple[faiss.IndexIVFPQ, dict[str, int]]:
    config.check(count, dim)
    code_bytes = config.code_bytes_of(dim)
    num_lists = min(config.num_lists or int(4 * math.sqrt(count)), max(count // 40, 1))
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, num_lists, code_bytes, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # it would only print a warning
    index.pq.cp.max_points_per_centroid = TRAINED_ON
    index.nprobe = min(config.num_probes, num_lists)
    return index, {"num_lists": num_lists, "num_probes": index.nprobe, "code_bytes": code_bytes}


def recall_of(index: faiss.Index, vectors: Tensor, queries: Tensor, places: int, *, depth: int = 0) -> float:
    """Share of exact lists that the first `depth` results hold (0: `places`), an item as good as the last being in."""
    found = torch.from_numpy(index.search(queries.numpy(), depth or places)[1])
    shares = []
    for some, listed in zip(queries.split(512), found.split(512), strict=True):
        scores = some @ vectors.t()
        last = scores.topk(places, dim=1).values[:, -1:]
        of_listed = scores.gather(1, (listed - 1).clamp(min=0))
        slack = 1e-5 * last.abs().clamp(min=1e-6)  # sums of products round in their order
        hits = ((of_listed >= last - slack) & (listed > 0)).sum(1)
        shares.append(hits.clamp(max=places).double() / places)
    return float(torch.cat(shares).mean())


def _latencies(index: faiss.Index, vectors: Tensor, queries: Tensor, places: int) -> tuple[float, float, float]:
    """(exact, index, 99th percentile of index), in milliseconds."""
    threads, of_faiss = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        exact = _times(queries, lambda query: (query @ vectors.t()).topk(places))
        approximate = _times(queries, lambda query: index.search(query.numpy(), places))
    finally:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(of_faiss)
    figures = (exact.median(), approximate.median(), approximate.quantile(0.99))
    return (round(float(figures[0]), 4), round(float(figures[1]), 4), round(float(figures[2]), 4))


def _times(queries: Tensor, search: Callable[[Tensor], object]) -> Tensor:
    """Milliseconds of each query, float64."""
    milliseconds = []
    for number in range(WARM_UP + TIMED):
        query = queries[number % len(queries)].unsqueeze(0)
        started = time.perf_counter()
        search(query)
        milliseconds.append((time.perf_counter() - started) * 1e3)
    return torch.tensor(milliseconds[WARM_UP:], dtype=torch.float64)
