"""Plans of `cafe`: by hand, published shares, budgets, refusals."""

from dataclasses import replace

import pytest

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.cafe import CafeConfig, published_share
from tests.embeddings.met_or_refused import check_budgets

ZIPF = tuple(1000 for _ in range(14))
RANKED = FeatureSpec(name="a", embedding_dim=16, num_embeddings=10_000, max_length=1, octave_counts=ZIPF)
KEYS = replace(RANKED, num_embeddings=None)


def test_plan_worked_out_by_hand() -> None:
    """64,000 bytes, half of them hashed: 500 rows; 32,000 / (64 + 4) = 470 private ones; 40 bytes are left."""
    plan = CafeConfig(budget_mib=64_000 / 2**20, hash_share=0.5).plan([RANKED])
    (entry,) = plan.features
    assert {key: entry.remap.params[key] for key in ("num_shared", "first_private", "num_private", "num_ids")} == {
        "num_shared": 500,
        "first_private": 500,
        "num_private": 470,
        "num_ids": 10_000,
    }
    assert (plan.table_bytes, plan.remap_bytes, plan.num_bytes) == (970 * 64, 470 * 4, 63_960)


def test_published_shares() -> None:
    shares = {2: 0.7, 5: 0.5, 20: 0.5, 50: 0.3, 100: 0.3, 200: 0.2, 1000: 0.2, 2000: 0.1, 10_000: 0.1}
    assert {compression: published_share(compression) for compression in shares} == shares


def test_budgets_are_kept_or_refused() -> None:
    check_budgets(lambda ratio: CafeConfig(compression_ratio=ratio))


def test_without_budget_nothing_changes_and_the_floor_is_one_row() -> None:
    assert [table.name for table in CafeConfig().plan([RANKED]).tables] == ["table_a"]
    with pytest.raises(ConfigError, match="needs 64 bytes, above the budget of 6 "):
        CafeConfig(budget_mib=6.5 / 2**20).plan([RANKED])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hash_share": 1.5}, "hash_share=1.5: must be between 0 and 1"),
        ({"refresh_every": 0}, "refresh_every=0: must be 1 or more"),
        ({"half_life": 0}, "half_life=0: must be 1 or more"),
        ({"prior_epochs": -1.0}, "prior_epochs=-1.0: must be between"),
    ],
)
def test_refusals(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CafeConfig(**values)  # type: ignore[arg-type]
