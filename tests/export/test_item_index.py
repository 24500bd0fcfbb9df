"""`items.faiss`: what each kind finds, that labels are ids, that too little found is refused."""

from dataclasses import replace
from pathlib import Path

import faiss
import pytest
import torch

from recsys.core.errors import ConfigError, ParityError
from recsys.export.index_config import IndexConfig, IndexKind
from recsys.export.item_index import recall_of, write_index


def vectors(count: int = 400, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "least"),
    [
        (IndexConfig(), 1.0),
        (IndexConfig(kind=IndexKind.HNSW), 0.99),
        (IndexConfig(kind=IndexKind.IVF_PQ, num_lists=4, num_probes=4, code_bytes=8, min_recall=0.5), 0.8),
    ],
    ids=lambda value: value.kind.value if isinstance(value, IndexConfig) else "",
)
def test_the_file_finds_what_exact_search_finds(config: IndexConfig, least: float, tmp_path: Path) -> None:
    items, queries = vectors(), vectors(50, seed=1)
    report = write_index(items, queries, config, tmp_path)
    assert report.recall >= least and report.recall_reranked >= report.recall
    assert report.file_bytes == (tmp_path / "items.faiss").stat().st_size
    assert (report.num_items, report.dim, report.places, report.num_queries) == (400, 8, 20, 50)
    assert 0 < report.index_ms <= report.index_p99_ms and report.exact_ms > 0
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    scores, ids = index.search(queries[:1].numpy(), 1)
    best = (items @ queries[0]).argmax()
    assert ids[0, 0] == int(best) + 1, "labels are ids, which count from 1"
    if config.kind is not IndexKind.IVF_PQ:
        assert float(scores[0, 0]) == pytest.approx(float(items[best] @ queries[0]), rel=1e-5)


def test_recall_counts_what_exact_search_would_list(tmp_path: Path) -> None:
    items, queries = vectors(), vectors(50, seed=1)
    half = faiss.IndexIDMap(faiss.IndexFlatIP(8))
    half.add_with_ids(items[:200].numpy(), torch.arange(1, 201).numpy())
    exact = (queries @ items.t()).topk(10, dim=1).indices
    assert recall_of(half, items, queries, 10) == pytest.approx(float((exact < 200).double().mean()))
    few = faiss.IndexIDMap(faiss.IndexFlatIP(8))
    few.add_with_ids(items[:3].numpy(), torch.arange(1, 4).numpy())
    assert recall_of(few, items, queries, 10) < 0.3, "places that stay empty are not found"


def test_ties_count_as_found(tmp_path: Path) -> None:
    same = vectors(1).repeat(60, 1)
    assert write_index(same, vectors(5, seed=1), IndexConfig(), tmp_path).recall == 1.0


def test_an_index_that_finds_too_little_is_refused(tmp_path: Path) -> None:
    config = IndexConfig(kind=IndexKind.IVF_PQ, num_lists=9, num_probes=1, code_bytes=1)
    with pytest.raises(ParityError, match=r"finds 0\.\d+ of the 20 best items, and export.index.min_recall=0.9"):
        write_index(vectors(), vectors(50, seed=1), config, tmp_path)
    report = write_index(vectors(), vectors(50, seed=1), replace(config, min_recall=0.0), tmp_path)
    assert report.settings == {"num_lists": 9, "num_probes": 1, "code_bytes": 1}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            IndexConfig(kind=IndexKind.IVF_PQ, code_bytes=3),
            "code_bytes=3: each byte stands for as many of the 8 columns",
        ),
        (IndexConfig(kind=IndexKind.IVF_PQ), "of 100 items: codes are learned from 256 at least"),
    ],
)
def test_codes_that_cannot_be_are_refused(config: IndexConfig, message: str, tmp_path: Path) -> None:
    items = vectors(100 if config.code_bytes == 0 else 400)
    with pytest.raises(ConfigError, match=message):
        write_index(items, vectors(5, seed=1), config, tmp_path)


@pytest.mark.parametrize("wrong", [{"links": 1}, {"num_probes": 0}, {"min_recall": 1.5}, {"places": 0}])
def test_impossible_settings_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"export.index.{next(iter(wrong))}="):
        IndexConfig(**wrong)  # type: ignore[arg-type]
