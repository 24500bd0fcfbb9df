"""Splits by shuffling, order and time: shares, and the same rows as if all were sorted, though they never are."""

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from recsys.data import splits
from recsys.data.blocks import slices
from recsys.data.dataset import SPLIT_NAMES, RawChunk, SplitConfig, SplitMethod
from recsys.data.ingest import ingest
from recsys.data.raw import ROW
from recsys.data.splits import hashes_of_ranks, split_assigner
from recsys.ops.hashing import mix64, salt_for
from tests.data.test_bad_input import OPTIONS, table

SALT = salt_for("split", 0, 2021)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 100, 4097, 70_000])
def test_ranks_are_those_of_all_sorted_hashes(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "ROWS_AT_ONCE", 4096)
    wanted = mix64(torch.arange(num_rows) + SALT).sort().values
    ranks = sorted({0, 1, num_rows // 3, num_rows - 1} & set(range(num_rows)))
    assert hashes_of_ranks(ranks, num_rows, SALT) == [int(wanted[rank]) for rank in ranks]
    assert hashes_of_ranks(ranks[:1] * 2, num_rows, SALT) == [int(wanted[ranks[0]])] * 2


SHARES = {
    "all three": (0.8, 0.1, 0.1),
    "no test": (0.7, 0.3, 0.0),
    "no validation": (0.9, 0.0, 0.1),
    "train": (1, 0, 0),
}


@pytest.mark.parametrize("method", [SplitMethod.SHUFFLE, SplitMethod.ORDER])
@pytest.mark.parametrize("shares", SHARES)
def test_rows_of_each_split(tmp_path: Path, shares: str, method: SplitMethod) -> None:
    frame = pl.DataFrame({"y": [i % 2 for i in range(200)], "price": [float(i) for i in range(200)],
                          "user": [i % 9 for i in range(200)], "item": ["a"] * 200, "tags": ["t"] * 200})  # fmt: skip
    frame.write_csv(tmp_path / "raw.csv")
    train, validation, test = SHARES[shares]
    config = SplitConfig(method=method, train=train, validation=validation, test=test)
    ingest(table(tmp_path / "raw.csv", split=config), tmp_path / "out", options=OPTIONS)
    order = torch.arange(200)
    if method is SplitMethod.SHUFFLE:
        order = torch.argsort(mix64(order + salt_for("split", 0, OPTIONS.seed)))
    first, second = 200 - round(200 * validation) - round(200 * test), 200 - round(200 * test)
    for name, rows in zip(SPLIT_NAMES, (order[:first], order[first:second], order[second:]), strict=True):
        found = [
            pl.read_parquet(path)["__row__"].to_list() for path in (tmp_path / "out" / name).glob("part-*.parquet")
        ]
        assert sorted(row for part in found for row in part) == sorted(rows.tolist()), name


def codes_by_time(times: list[object], shares: tuple[float, float, float]) -> list[int]:
    """The splits that `split_assigner` gives to rows of these times, seven at a time."""
    train, validation, test = shares
    config = SplitConfig(method=SplitMethod.TIME, column="t", train=train, validation=validation, test=test)
    frame = pl.DataFrame({"t": times, ROW: range(len(times))})
    chunks = [RawChunk(frame=part, split="", shard=0, rejected=pl.DataFrame(), unknown={}) for part in slices(frame, 7)]
    raw = SimpleNamespace(split=config, name="x", chunks=lambda *_, **__: iter(chunks))
    shards = [SimpleNamespace(num_rows=len(times))]
    assign = split_assigner(raw, shards, seed=1, chunk_rows=7, strict=True)  # type: ignore[arg-type]
    return [code for chunk in chunks for code in assign(chunk).tolist()]


@pytest.mark.parametrize("shares", [shares for shares in SHARES.values() if shares[0] < 1])
@pytest.mark.parametrize("kind", ["numbers", "texts", "texts of numbers"])
def test_cuts_between_times_lie_nearest_to_the_shares(
    kind: str, shares: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "TIMES_AT_ONCE", 16)
    generator = torch.Generator().manual_seed(len(kind))
    for size in (5, 23, 300):
        drawn = [0, 1, 2, *torch.randint(31, (size,), generator=generator).tolist()]
        times: list[object] = {"numbers": drawn, "texts": [f"2024-01-{1 + t:02}" for t in drawn]}.get(kind, [])
        codes = codes_by_time(times or [str(t) for t in drawn], shares)
        by_time = {t: {code for time, code in zip(drawn, codes, strict=True) if time == t} for t in sorted(set(drawn))}
        assert all(len(found) == 1 for found in by_time.values()), "rows of one time stay together"
        ordered = [found.pop() for found in by_time.values()]
        assert ordered == sorted(ordered) and set(ordered) == {0, *(n for n in (1, 2) if shares[n] > 0)}
        ends = [sum(drawn.count(t) for t in list(by_time)[: n + 1]) for n in range(len(by_time))]
        if shares[2] > 0:
            wanted = len(drawn) - int(len(drawn) * shares[2] + 1e-6)
            others = [abs(end - wanted) for end in ends[1 if shares[1] > 0 else 0 : -1]]
            assert abs(len(drawn) - codes.count(2) - wanted) == min(others)
