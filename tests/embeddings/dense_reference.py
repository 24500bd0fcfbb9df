"""A slow, independent account of what a plan computes: one id of one row at a time, with plain tensors.

It uses no code of `recsys.embeddings`: only the plan's JSON is read. What a remap or combiner computes is written
again, one id at a time, in the function of the same name below `tests/embeddings/reference`, one module a method.
"""

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.plan import TablePlan
from tests.embeddings import reference

Bags = Mapping[str, Sequence[Sequence[int]]]
States = Mapping[str, Mapping[str, Tensor]]
"""By feature: what its combiner owns, by name; a remap's buffers as "remap.NAME"."""


def jagged(bags: Bags) -> KeyedJaggedTensor:
    """The bags of each column as TorchRec wants them."""
    return KeyedJaggedTensor(
        keys=list(bags),
        values=torch.tensor([i for rows in bags.values() for ids in rows for i in ids], dtype=torch.int64),
        lengths=torch.tensor([len(ids) for rows in bags.values() for ids in rows]),
    )


@cache
def functions() -> dict[str, Callable[..., Any]]:
    """By class name, the functions that say again what remaps and combiners compute."""
    modules = [
        importlib.import_module(f"{reference.__name__}.{m.name}") for m in pkgutil.iter_modules(reference.__path__)
    ]
    found: dict[str, Callable[..., Any]] = {}
    for module in modules:
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__:
                assert name not in found, f"{module.__name__}.{name}: another method has a class of that name"
                found[name] = value
    return found


def embed(
    entry: Mapping[str, Any], tables: Mapping[str, Tensor], key: int, state: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Embedding of one id."""
    remap, combiner, state = entry["remap"], entry["combiner"], state or {}
    of_remap = {name.removeprefix("remap."): value for name, value in state.items() if name.startswith("remap.")}
    numbers = functions()[remap["target"].rpartition(".")[2]](remap["params"], of_remap, key)
    rows = [tables[name][row] for name, row in zip(entry["tables"], numbers, strict=True)]
    combined: Tensor = functions()[combiner["target"].rpartition(".")[2]](combiner["params"], state, key, rows)
    return combined


def anchor(tables: Mapping[str, Tensor]) -> Tensor:
    """Zero, with a gradient of zero to every table: a batch without ids can be differentiated too."""
    return torch.stack([torch.zeros(()), *(table.sum() * 0 for table in tables.values())]).sum()


def unpooled(
    plan: TablePlan, tables: Mapping[str, Tensor], bags: Bags, states: States | None = None
) -> dict[str, Tensor]:
    """By feature, the embeddings of all its ids, (N, embedding_dim)."""
    result = {}
    for entry in json.loads(plan.to_json())["features"]:
        spec = entry["feature"]
        state = (states or {}).get(spec["name"])
        embedded = [embed(entry, tables, key, state) for ids in bags[spec["source"]] for key in ids]
        result[spec["name"]] = torch.stack(embedded) if embedded else torch.zeros(0, spec["embedding_dim"])
    return result


def pooled(plan: TablePlan, tables: Mapping[str, Tensor], bags: Bags, states: States | None = None) -> Tensor:
    """The features side by side, (B, sum of embedding_dim)."""
    blocks = []
    for entry in json.loads(plan.to_json())["features"]:
        spec = entry["feature"]
        block = []
        state = (states or {}).get(spec["name"])
        for ids in bags[spec["source"]]:
            total = anchor(tables).expand(spec["embedding_dim"])
            for key in ids:
                total = total + embed(entry, tables, key, state)
            block.append(total / len(ids) if ids and spec["pooling"] == "mean" else total)
        blocks.append(torch.stack(block))
    return torch.cat(blocks, dim=1)


def randomise(collection: torch.nn.Module, seed: int) -> None:
    """Table weights of order 1, so that products do not vanish; the padding gets garbage that nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in table_parameters(collection).values():
            weight.copy_(torch.randn(weight.shape, generator=generator))


def table_parameters(collection: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weight of each physical table."""
    kinds = ("embedding_bags", "embeddings")
    return {
        name.split(".")[-2]: weight
        for name, weight in collection.named_parameters()
        if len(name.split(".")) > 2 and name.split(".")[-3] in kinds
    }


def dense_tables(plan: TablePlan, collection: torch.nn.Module) -> dict[str, Tensor]:
    """Leaf copies of the tables at their exact widths."""
    weights = table_parameters(collection)
    assert set(weights) == {table.name for table in plan.tables}
    return {
        table.name: weights[table.name].detach()[:, : table.embedding_dim].clone().requires_grad_()
        for table in plan.tables
    }


def states_of(collection: torch.nn.Module) -> dict[str, dict[str, Tensor]]:
    """Leaf copies of what remaps and combiners own, by feature."""
    states: dict[str, dict[str, Tensor]] = {}
    for feature, (remap, combiner) in parts_of(collection).items():
        owned = {name: weight.detach().clone().requires_grad_() for name, weight in combiner.named_parameters()}
        buffers = {name: value.clone() for name, value in combiner.named_buffers()}
        states[feature] = owned | buffers | {f"remap.{name}": value.clone() for name, value in remap.named_buffers()}
    return states


def parts_of(collection: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    """Remap and combiner of every feature of a pooled or unpooled collection."""
    found = {}
    for module in collection.modules():
        for entry, *parts in zip(
            *(getattr(module, name, ()) for name in ("entries", "remaps", "combiners")), strict=True
        ):
            found[entry.feature.name] = (parts[0], parts[1])
    return found


def assert_same_combiner_gradients(collection: torch.nn.Module, states: States) -> None:
    """Gradients of combiners' weights equal those of the leaf copies."""
    for feature, (_, combiner) in parts_of(collection).items():
        for name, weight in combiner.named_parameters():
            got, want = weight.grad, states[feature][name].grad
            zero = torch.zeros_like(weight)
            torch.testing.assert_close(zero if got is None else got, zero if want is None else want)


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
