"""Hashes and network of `dhe`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.ops import splitmix64


def NoRows(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return []


def encoding(salt: int, num_hashes: int, key: int) -> list[float]:
    count = (num_hashes + 3) // 4
    mixed = [splitmix64.mix(key + splitmix64.mix(salt + step * 0x9E3779B97F4A7C15)) for step in range(1, count + 1)]
    hashes = [mix // 65536**part % 65536 for part in range(4) for mix in mixed]
    return [(2 * value + 1) / 65536 - 1 for value in hashes[:num_hashes]]


def HashNetwork(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    values = torch.tensor(encoding(params["salt"], params["sizes"][0], key), dtype=torch.float32)
    for layer in range(len(params["sizes"]) - 2):
        values = state[f"hidden.{layer}.weight"] @ values + state[f"hidden.{layer}.bias"]
        if params["batch_norm"]:  # of evaluation: a batch does not show one id at a time
            norm = {name: state[f"norms.{layer}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
            values = (values - norm["running_mean"]) / torch.sqrt(norm["running_var"] + 1e-5)
            values = values * norm["weight"] + norm["bias"]
        values = _mish(values) if params["activation"] == "mish" else torch.where(values > 0, values, 0.0)
    return state["last.weight"] @ values + state["last.bias"]


def _mish(values: Tensor) -> Tensor:
    return torch.stack([value * torch.tanh(torch.log1p(torch.exp(value))) for value in values])
