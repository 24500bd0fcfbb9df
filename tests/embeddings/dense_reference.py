"""A slow, independent account of what a plan computes: one id of one row at a time, with plain tensors.

It uses no code of `recsys.embeddings`: only the plan's JSON is read, and row hashes come from the Python integers of
`tests.ops.splitmix64`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.plan import TablePlan
from tests.ops import splitmix64

Bags = Mapping[str, Sequence[Sequence[int]]]


def jagged(bags: Bags) -> KeyedJaggedTensor:
    """The bags of each column as TorchRec wants them."""
    return KeyedJaggedTensor(
        keys=list(bags),
        values=torch.tensor([i for rows in bags.values() for ids in rows for i in ids], dtype=torch.int64),
        lengths=torch.tensor([len(ids) for rows in bags.values() for ids in rows]),
    )


def rows_of(remap: Mapping[str, Any], key: int) -> list[int]:
    """Rows of one id, one per look-up."""
    params = remap["params"]
    match remap["target"].rpartition(".")[2]:
        case "Identity":
            return [key]
        case "HashRemap":
            return [splitmix64.row(key, salt, params["num_rows"]) for salt in params["salts"]]
        case "QuotientRemainderRemap":
            return list(divmod(key, params["num_remainders"]))
        case other:
            raise NotImplementedError(other)


def embed(entry: Mapping[str, Any], tables: Mapping[str, Tensor], key: int) -> Tensor:
    """Embedding of one id."""
    rows = [tables[name][row] for name, row in zip(entry["tables"], rows_of(entry["remap"], key), strict=True)]
    match entry["combiner"]["target"].rpartition(".")[2]:
        case "Only":
            (only,) = rows
            return only
        case "Sum":
            return torch.stack(rows).sum(0)
        case "Product":
            return torch.stack(rows).prod(0)
        case "Concat":
            return torch.cat(rows)
        case other:
            raise NotImplementedError(other)


def anchor(tables: Mapping[str, Tensor]) -> Tensor:
    """Zero, with a gradient of zero to every table: a batch without ids can be differentiated too."""
    return torch.stack([table.sum() * 0 for table in tables.values()]).sum()


def unpooled(plan: TablePlan, tables: Mapping[str, Tensor], bags: Bags) -> dict[str, Tensor]:
    """By feature, the embeddings of all its ids, (N, embedding_dim)."""
    result = {}
    for entry in json.loads(plan.to_json())["features"]:
        spec = entry["feature"]
        embedded = [embed(entry, tables, key) for ids in bags[spec["source"]] for key in ids]
        result[spec["name"]] = torch.stack(embedded) if embedded else torch.zeros(0, spec["embedding_dim"])
    return result


def pooled(plan: TablePlan, tables: Mapping[str, Tensor], bags: Bags) -> Tensor:
    """The features side by side, (B, sum of embedding_dim)."""
    blocks = []
    for entry in json.loads(plan.to_json())["features"]:
        spec = entry["feature"]
        block = []
        for ids in bags[spec["source"]]:
            total = anchor(tables).expand(spec["embedding_dim"])
            for key in ids:
                total = total + embed(entry, tables, key)
            block.append(total / len(ids) if ids and spec["pooling"] == "mean" else total)
        blocks.append(torch.stack(block))
    return torch.cat(blocks, dim=1)


def randomise(collection: torch.nn.Module, seed: int) -> None:
    """Weights of order 1, so that products do not vanish; the padding gets garbage that nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in collection.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))


def table_parameters(collection: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weight of each physical table."""
    return {name.split(".")[-2]: weight for name, weight in collection.named_parameters()}


def dense_tables(plan: TablePlan, collection: torch.nn.Module) -> dict[str, Tensor]:
    """Leaf copies of the tables at their exact widths."""
    weights = table_parameters(collection)
    assert set(weights) == {table.name for table in plan.tables}
    return {
        table.name: weights[table.name].detach()[:, : table.embedding_dim].clone().requires_grad_()
        for table in plan.tables
    }


def assert_same_gradients(plan: TablePlan, collection: torch.nn.Module, tables: Mapping[str, Tensor]) -> None:
    """Gradients of the collection's tables equal those of the dense copies; the padding has none."""
    for name, weight in table_parameters(collection).items():
        width = plan.table(name).embedding_dim
        got = torch.zeros_like(weight) if weight.grad is None else weight.grad
        want = tables[name].grad
        torch.testing.assert_close(got[:, :width], torch.zeros_like(tables[name]) if want is None else want)
        assert not got[:, width:].any(), f"padding of {name} has a gradient"


def random_bags(sizes: Mapping[str, int], num_rows: int, seed: int, *, max_length: int) -> dict[str, list[list[int]]]:
    """Bags of 0 to `max_length` ids (exactly one if that is 1) below each column's size; ids repeat within a bag."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    lengths = [1] * num_rows if max_length == 1 else [math.floor(i % (max_length + 1)) for i in range(num_rows)]
    return {
        name: [[draw(size) for _ in range(lengths[(row + shift) % num_rows])] for row in range(num_rows)]
        for shift, (name, size) in enumerate(sizes.items())
    }
