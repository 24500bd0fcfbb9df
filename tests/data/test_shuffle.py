"""The shuffled split: exact shares, and the same rows as if all were sorted by their hashes."""

from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.data import splits
from recsys.data.dataset import SPLIT_NAMES, SplitConfig, SplitMethod
from recsys.data.ingest import ingest
from recsys.data.splits import hashes_of_ranks
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
