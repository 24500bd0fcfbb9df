"""Budgets are met, or refused with a floor that is accepted: over many vocabularies and ratios, and mixed widths."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig

RATIOS = (1.0, 2.0, 5.0, 10.0, 100.0)
SIZES = (
    (1,), (2,), (7,), (1000,), (1, 1, 1), (3, 3, 4), (50, 50, 50, 50), (1, 2, 4, 8, 16, 32, 64, 128),
    (24, 1000, 1000), (5, 300, 20_000), (2, 17, 100_003), (10, 100, 1000, 10_000, 100_000),
)  # fmt: skip


def ranked_counts(size: int) -> tuple[int, ...]:
    """Look-ups of ids in [2**k, 2**(k+1)) where id i has about 1000 / i of them."""
    octaves = [range(2**k, min(2 ** (k + 1), size)) for k in range(size.bit_length())]
    return tuple(sum(1 + 1000 // i for i in ids) for ids in octaves if ids)


def features_of(sizes: Sequence[int], width: int, *, counted: bool, linear: bool) -> list[FeatureSpec]:
    """Features with or without counts, and with or without linear weights beside them."""
    specs = [
        FeatureSpec(
            name=f"f{number}",
            embedding_dim=width,
            num_embeddings=size,
            max_length=1,
            octave_counts=ranked_counts(size) if counted else (),
        )
        for number, size in enumerate(sizes)
    ]
    return specs + [replace(spec, name=f"{spec.name}__linear", embedding_dim=1) for spec in specs if linear]


def cases() -> Iterator[list[FeatureSpec]]:
    """Feature lists of every kind."""
    for sizes in SIZES:
        for number, width in enumerate((1, 10, 16)):
            yield features_of(sizes, width, counted=number % 2 == 0, linear=width == 16)


def check_budgets(make: Callable[[float], MethodConfig]) -> None:
    """Plans of `make(compression_ratio)` keep their budgets; refusals advise a budget that is kept, and needs all."""
    for features in cases():
        before = None
        for ratio in RATIOS:
            config = make(ratio)
            try:
                plan = config.serving_plan(config.plan(features))
            except ConfigError as refusal:
                plan = _at_floor(config, features, str(refusal))
            else:
                assert plan.num_bytes <= config.budget_bytes(features), (features, ratio)
            assert before is None or plan.num_bytes <= before, (features, ratio)
            before = plan.num_bytes


def _at_floor(config: MethodConfig, features: Sequence[FeatureSpec], refusal: str) -> TablePlan:
    found = re.search(r"needs ([\d,]+) bytes, above the budget of .* Raise the budget to ([\d.]+) MiB", refusal)
    assert found, refusal
    floor, advised = int(found[1].replace(",", "")), float(found[2])
    at_floor, above = (replace(config, compression_ratio=None, budget_mib=mib) for mib in (floor / 2**20, advised))
    plan = at_floor.serving_plan(at_floor.plan(features))
    assert plan.num_bytes == floor
    assert above.serving_plan(above.plan(features)).num_bytes >= floor
    with pytest.raises(ConfigError, match=f"needs {floor:,} bytes"):
        replace(config, compression_ratio=None, budget_mib=(floor - 1) / 2**20).plan(features)
    return plan
