"""MovieLens-100k's own form: lines with faults, users and films that are not known."""

from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.movielens import MovieLensDataset

GENRES = "|".join("1" if genre in (3, 5) else "0" for genre in range(19))
RATINGS = [
    f"{user}\t{item}\t{1 + (user * item) % 5}\t{1000 + 10 * user + item}" for user in (1, 2) for item in range(60)
]
USERS = "1|24|M|writer|85711\n2|53|F|other|94043\n"
FILMS = "".join(f"{item}|Caf\xe9 {item} (1995)|01-Jan-1995||http://x/{item}|{GENRES}\n" for item in range(60))


def dataset(folder: Path, ratings: list[str], users: str = USERS, films: str = FILMS) -> MovieLensDataset:
    texts = {"u.data": "\n".join(ratings) + "\n", "u.user": users, "u.item": films}
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    paths = [str(folder / name) for name in texts]
    return MovieLensDataset(ratings=paths[0], users=paths[1], items=paths[2])


def test_faulty_ratings_are_left_out_and_listed(tmp_path: Path) -> None:
    faulty = [*RATINGS[:3], "1\ttwo\t5\t99", "1\t2", "9\t2\t5\t99", "1\t2\t\t99", *RATINGS[3:]]
    given = dataset(tmp_path, faulty)
    manifest = ingest(given, tmp_path / "out", options=IngestOptions(max_rejected=0.1))
    assert manifest.num_rejected == 4 and sum(split.num_rows for split in manifest.splits.values()) == len(RATINGS)
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected.select("row", "column", "value").rows() == [
        (4, "item", "two"),
        (5, "", "1\t2"),
        (6, "user", "9"),
        (7, "rating", None),
    ]
    sound = dataset(tmp_path, RATINGS).open(tmp_path / "sound").files[0].path
    assert pl.read_parquet(tmp_path / "out" / "raw" / sound.name).equals(pl.read_parquet(sound))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ratings": [*RATINGS, "1\t2\tgood\t99"]}, r"u\.data, row 121 .*column 'rating': 'good' is no signed 64-bit"),
        ({"ratings": [*RATINGS, "1\t2\t7\t99"]}, r"u\.data, row 121 .*column 'rating': 7 is no rating from 1 to 5"),
        ({"ratings": [*RATINGS, "1\t2\t\t99"]}, r"u\.data, row 121 .*column 'rating': None is no rating from 1 to 5"),
        ({"ratings": [*RATINGS, f"1\t2\t4\t{2**62}"]}, r"u\.data, row 121 .*column 'time': '4611\d*' is no time"),
        ({"ratings": [*RATINGS, f"1\t2\t4\t{2**60}"]}, r"u\.data, row 121 .*column 'time': 1152\d* are no seconds"),
        (
            {"ratings": [*RATINGS, "9\t2\t4\t99"]},
            r"u\.data, row 121 .*column 'user': 9 is in no line of the file of us",
        ),
        (
            {"ratings": [*RATINGS, "1\t99\t4\t99"]},
            r"u\.data, row 121 .*column 'item': 99 is in no line of the file",
        ),
        ({"users": USERS.replace("24", "old")}, r"u\.user, row 1 .*column 'age': 'old' is no whole number"),
        ({"ratings": [""]}, r"u\.data: the file holds no ratings"),
        ({"users": USERS + USERS[:20]}, r"u\.user: user 1 has more than one row"),
        ({"films": FILMS + FILMS.splitlines()[7]}, r"u\.item: item 7 has more than one row"),
        ({"users": "1|24|M\n"}, r"u\.user, line 1: '1\|24\|M' has no 5 values separated by '\|'"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    given = dataset(tmp_path, **{"ratings": RATINGS, **changes})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        ingest(given, tmp_path / "out", options=IngestOptions())
