"""A module with weights and buffers, reachable below `recsys.` as plans require."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from recsys.core.component import Component


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.register_buffer("codes", torch.zeros(7, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(1000), persistent=False)


@pytest.fixture
def weighted_component(monkeypatch: pytest.MonkeyPatch) -> Component:
    module = ModuleType("recsys.sample_of_tests")
    module.Weighted = Weighted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Component(f"{module.__name__}.Weighted")
