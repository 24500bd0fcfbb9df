"""How recovered attention is measured, by hand; the times of a search at small sizes; the table over seeds."""

import pytest
import torch
from rich.console import Console

from recsys.models.dare import DAREConfig
from recsys.models.din import DINConfig
from tests.models.world import build, inputs
from tools import bench_attention_search
from tools.bench_attention import planted_events, recovery, table_of


def test_planted_events() -> None:
    relevant, there = planted_events(["010", "1", ""])
    assert relevant.tolist() == [[False, True, False], [True, False, False], [False] * 3]
    assert there.tolist() == [[True] * 3, [True, False, False], [False] * 3]


def test_recovery_by_hand() -> None:
    relevant, there = planted_events(["0110", "10", "11", "000"])  # the last two ask nothing
    weights = torch.tensor([[0.1, 0.6, 0.1, 0.2], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    found = recovery(weights, relevant, there)
    assert found.mass == pytest.approx((0.7 + 0.0) / 2)
    assert found.hits == pytest.approx((0.5 + 0.0) / 2)  # of {1, 3} one is relevant; of {1} none
    assert found.chance == pytest.approx((2 / 4 + 1 / 2) / 2)
    knowing = recovery(relevant.float(), relevant, there)
    assert knowing.mass == knowing.hits == pytest.approx(1.0)


@pytest.mark.parametrize("config", [DINConfig(attention_dropout=0.0), DAREConfig(top_k=2)], ids=["din", "dare"])
def test_event_weights_are_shares_of_the_events_that_are_there(config: DINConfig | DAREConfig) -> None:
    arguments = inputs(config, 0)
    assert len(arguments) == 4
    _, embeddings, sequences, lengths = arguments
    weights = build(config, 0).eval().event_weights(embeddings, sequences, lengths)  # type: ignore[operator]
    assert weights.shape == sequences[0].shape[:2]
    torch.testing.assert_close(weights.sum(1), (lengths[0] > 0).float())
    for row, length in zip(weights, lengths[0].tolist(), strict=True):
        most = length if isinstance(config, DINConfig) else min(length, 2)
        assert int((row > 0).sum()) == most and not row[length:].any()


def test_search_times() -> None:
    sizes = bench_attention_search.Sizes(dim=8, length=30, rows=2, items=50)
    found = bench_attention_search.medians(sizes, 1)
    assert list(found) == ["search, eager", "search, exported", "request, eager", "request, exported"]
    assert all(list(times) == [8, 4, 2] and min(times.values()) > 0 for times in found.values())
    calls = bench_attention_search.contestants(sizes, 4)
    for kind in ("search", "request"):
        torch.testing.assert_close(calls[f"{kind}, exported"](), calls[f"{kind}, eager"]())


def test_table_over_seeds() -> None:
    console = Console(width=120, record=True)
    console.print(table_of({"din": [{"AUC": 0.5, "bytes": 1200.0}, {"AUC": 0.7, "bytes": 1200.0}]}))
    text = console.export_text()
    assert "0.6000 ± 0.1414" in text and "1,200" in text
