"""`adapt_emb`: private and shared rows worked out by hand, with one tail and with one a feature."""

from typing import Any

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.adapt_emb import AdaptEmbConfig, HeadOrHash
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, EXTREMES, KINDS, SIZES, features
from tests.embeddings.test_min_count import ROW, two_features
from tests.ops import splitmix64

BOTH = pytest.mark.parametrize("shared_tail", [True, False])


def config(num_rows: int, **options: Any) -> AdaptEmbConfig:  # noqa: ANN401
    return AdaptEmbConfig(budget_mib=num_rows * ROW / 2**20, **options)


def layout(num_rows: int, **options: Any) -> dict[str, list[int]]:  # noqa: ANN401
    """By feature: private rows, the first of them, shared rows, the first of them."""
    names = ("num_private", "first_private", "num_shared", "first_shared")
    plan = config(num_rows, **options).plan(two_features())
    assert plan.num_bytes <= num_rows * ROW
    return {e.feature.name: [e.remap.params[name] for name in names if name in e.remap.params] for e in plan.features}


def test_one_tail_lies_behind_all_private_rows() -> None:
    # half of 8: id 0 of both, then b1 (20 look-ups) and a1 (9)
    assert layout(8) == {"a": [2, 0, 4, 4], "b": [2, 2, 4, 4]}
    assert layout(8, head_share=0.0) == {"a": [0, 0, 8, 0], "b": [0, 0, 8, 0]}
    # 6 private rows: b owns all its 4, in a table of its own
    assert layout(8, head_share=0.75) == {"a": [2, 0, 2, 2], "b": []}
    assert layout(1) == {"a": [0, 0, 1, 0], "b": [0, 0, 1, 0]}


def test_tails_apart_share_out_their_rows_by_ids_without_private_ones() -> None:
    # 4 private rows as above; of the other 4, one each, and 2 spare by 5 : 2 rare ids
    assert layout(8, shared_tail=False) == {"a": [2, 0, 2, 2], "b": [2, 0, 1, 2]}
    assert layout(2, shared_tail=False) == {"a": [0, 0, 1, 0], "b": [0, 0, 1, 0]}
    with pytest.raises(ConfigError, match=f"needs {2 * ROW} bytes"):
        layout(1, shared_tail=False)


@BOTH
def test_everything_is_private_where_the_budget_allows(shared_tail: bool) -> None:
    assert layout(11, shared_tail=shared_tail) == {"a": [], "b": []}
    assert len(config(11, shared_tail=shared_tail).plan(two_features()).tables) == 2


def test_rows_of_ids() -> None:
    salt = splitmix64.salt("a", 0, 0)
    rows = HeadOrHash(3, 10, 100, 20, salt)(torch.tensor([0, 1, 2, 3, 4, 2**63 - 1])).tolist()
    assert rows == [[10, 11, 12, *(20 + splitmix64.row(key, salt, 100) for key in (3, 4, 2**63 - 1))]]
    assert rows == [[10, 11, 12, *GOLDEN]]


GOLDEN = [51, 85, 66]
"""Frozen: a change makes stored checkpoints and bundles unusable."""


@BOTH
def test_no_byte_beside_the_rows(shared_tail: bool) -> None:
    plan = config(8, shared_tail=shared_tail).plan(two_features())
    assert plan.num_bytes == plan.table_bytes


@BOTH
def test_hashed_feature_lives_in_the_tail_whatever_its_ids(shared_tail: bool) -> None:
    hashed = FeatureSpec(name="ip", embedding_dim=4, num_embeddings=None, octave_counts=(1, 2, 4))
    plan = AdaptEmbConfig(compression_ratio=2, shared_tail=shared_tail).plan([*two_features(), hashed])
    bags = {"a": [[3, 6], [0], [5]], "b": [[3], [], [1]], "ip": [EXTREMES, [], [-1]]}
    assert plan.features[2].remap.params["num_private"] == 0
    for check in CHECKS.values():
        check(plan, bags)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_head_share_outside_its_range(share: float) -> None:
    with pytest.raises(ConfigError, match=r"head_share=.*at least 0 and below 1"):
        AdaptEmbConfig(head_share=share)


@BOTH
@pytest.mark.parametrize("head_share", [0.0, 0.5, 0.99])
def test_budgets(head_share: float, shared_tail: bool) -> None:
    check_budgets(lambda ratio: AdaptEmbConfig(compression_ratio=ratio, head_share=head_share, shared_tail=shared_tail))


@BOTH
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_the_dense_reference(kind: str, check: str, shared_tail: bool) -> None:
    plan = AdaptEmbConfig(compression_ratio=3, shared_tail=shared_tail).plan(features(kind, width=6, linear=True))
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))
