"""Small implicit feedback: users who like one half of the items, written as files or held as `Interactions`."""

from pathlib import Path

import torch

from recsys.core.interactions import Interactions

NUM_USERS, NUM_ITEMS = 60, 40


def pairs(seed: int = 0, *, share: float = 0.25) -> list[tuple[int, int]]:
    """(user, item) from 0, distinct; even users like even items, odd ones odd items, with a few exceptions."""
    draw = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(seed))
    alike = (torch.arange(NUM_USERS).unsqueeze(1) + torch.arange(NUM_ITEMS)) % 2 == 0
    chosen = draw < torch.where(alike, 1.6 * share, 0.2 * share)
    return [(int(user), int(item)) for user, item in chosen.nonzero()]


def interactions(seed: int = 0) -> Interactions:
    """`pairs` with ids from 1."""
    users, items = torch.tensor(pairs(seed)).t() + 1
    return Interactions.of(users, items, num_users=NUM_USERS + 1, num_items=NUM_ITEMS + 1)


def lines(found: list[tuple[int, int]]) -> str:
    """One line a user: `user item item …`; item keys have gaps, 3 from one to the next."""
    by_user: dict[int, list[int]] = {}
    for user, item in found:
        by_user.setdefault(user, []).append(3 * item)
    return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in by_user.items())


def write_files(folder: Path) -> tuple[Path, Path]:
    """Train and test files of `pairs`, one in four of them test."""
    found = pairs()
    train, test = folder / "train.txt", folder / "test.txt"
    train.write_text(lines([pair for number, pair in enumerate(found) if number % 4]))
    test.write_text(lines([pair for number, pair in enumerate(found) if number % 4 == 0]))
    return train, test
