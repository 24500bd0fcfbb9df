"""What tests of methods that compress trained full tables share: features, tables, and what is read after freezing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen, parts_of
from recsys.embeddings.method import MethodConfig
from tests.embeddings import dense_reference as reference


def users_and_tags(num_users: int) -> list[FeatureSpec]:
    """A large feature of counted ids with linear weights beside it, one of several values and one of a single id."""
    counts = (900, 500, 300, 100)
    return [
        FeatureSpec(name="user", embedding_dim=8, num_embeddings=num_users, max_length=1, octave_counts=counts),
        FeatureSpec(name="tags", embedding_dim=8, num_embeddings=60, max_length=4, pooling=Pooling.MEAN),
        FeatureSpec(name="one", embedding_dim=8, num_embeddings=1),
        FeatureSpec(name="user__linear", embedding_dim=1, num_embeddings=num_users, source="user", max_length=1),
    ]


def trained(plan: TablePlan, *, seed: int = 0, decay: float = 0.0) -> EmbeddingParts:
    """Parts with correlated normal rows; row i is scaled by (i + 1) ** -decay, as rare ids are trained less."""
    generator = torch.Generator().manual_seed(seed)
    tables = {}
    for table in plan.tables:
        width = table.embedding_dim
        mix = torch.randn(width, width, generator=generator) * torch.linspace(0.1, 1.5, width)
        rows = torch.randn(table.num_embeddings, width, generator=generator) @ mix
        tables[table.name] = rows * torch.arange(1, table.num_embeddings + 1).unsqueeze(1) ** -decay
    return parts_of(PlannedEmbeddingBagCollection(plan), tables)


def served_rows(parts: EmbeddingParts) -> dict[str, Tensor]:
    """By feature, the served embedding of every id, (n, embedding_dim)."""
    bags = {e.feature.source: [[i] for i in range(e.feature.num_embeddings or 0)] for e in parts.plan.features}
    result = {}
    for entry in parts.plan.features:
        one = build_frozen(parts.of([entry.feature.name]))
        result[entry.feature.name] = one(reference.jagged({entry.feature.source: bags[entry.feature.source]})).values()
    return {name: values.detach() for name, values in result.items()}


def error(config: MethodConfig, features: Sequence[FeatureSpec], *, decay: float = 0.0) -> float:
    """Mean squared error of the served embeddings, relative to their mean square."""
    parts = trained(config.plan(features), decay=decay)
    served = served_rows(config.freeze(parts))
    lost = sum(float((served[e.feature.name] - parts.tables[e.tables[0]]).square().sum()) for e in parts.plan.features)
    return lost / sum(float(table.square().sum()) for table in parts.tables.values())


def assert_frozen_as_planned(config: MethodConfig, parts: EmbeddingParts) -> EmbeddingParts:
    """Freeze; the plan and every shape and byte are those of the serving plan, and a second time gives the same."""
    frozen, again = config.freeze(parts), config.freeze(parts)
    served = config.serving_plan(parts.plan)
    assert frozen.plan == served == again.plan
    total = 0
    for table in served.tables:
        assert frozen.tables[table.name].shape == (table.num_embeddings, table.embedding_dim)
        assert frozen.tables[table.name].dtype == torch.float32
        assert torch.equal(frozen.tables[table.name], again.tables[table.name])
        total += table.num_bytes
    for entry in served.features:
        for kind, component in (("remaps", entry.remap), ("combiners", entry.combiner)):
            state = getattr(frozen, kind)[entry.feature.name].state_dict()
            other = getattr(again, kind)[entry.feature.name].state_dict()
            fresh = component.build().state_dict()
            assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
                k: (v.shape, v.dtype) for k, v in fresh.items()
            }
            assert all(torch.equal(state[k], other[k]) for k in state)
            total += sum(v.numel() * v.element_size() for v in state.values())
    assert total == served.num_bytes <= config.budget_bytes([entry.feature for entry in parts.plan.features])
    return frozen


def assert_equals_reference(parts: EmbeddingParts) -> None:
    """Every id's served embedding is what the slow dense reference computes from the frozen parts."""
    for entry in parts.plan.features:
        name, size = entry.feature.name, entry.feature.num_embeddings or 0
        one = parts.of([name])
        collection = build_frozen(one)
        bags = {entry.feature.source: [[i, (7 * i) % size] for i in range(size)] + [[]]}
        tables = reference.dense_tables(one.plan, collection)
        want = reference.pooled(one.plan, tables, bags, reference.states_of(collection))
        torch.testing.assert_close(collection(reference.jagged(bags)).values(), want)


def assert_scripts(parts: EmbeddingParts) -> None:
    """Remaps and combiners script and compute what they do eagerly, for no id too."""
    for entry in parts.plan.features:
        remap, combiner = parts.remaps[entry.feature.name], parts.combiners[entry.feature.name]
        for ids in (torch.arange(entry.feature.num_embeddings or 0), torch.empty(0, dtype=torch.int64)):
            rows = remap(ids)
            assert rows.shape == (len(entry.tables), len(ids)) and rows.dtype == torch.int64
            assert torch.equal(torch.jit.script(remap)(ids), rows)
            looked_up = [parts.tables[name][row] for name, row in zip(entry.tables, rows, strict=True)]
            assert torch.equal(torch.jit.script(combiner)(ids, looked_up), combiner(ids, looked_up))
