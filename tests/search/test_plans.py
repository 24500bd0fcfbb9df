"""A plan of a choice embeds what the supernet shows of the choice, id by id, scripted too."""

from dataclasses import replace

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.search.choice import Choice
from recsys.search.masks import Mask, masks_in, supernet_plan, try_out
from recsys.search.plans import KeptPieces, PieceColumns, plan_of
from tests.search.world import FEATURES, SPACE, choice

ALL = tuple(range(8))
CHOICES = {
    "full": SPACE.full,
    "prefix": choice(user=[(40, (0, 1, 2))], tags=[(20, (0,))]),
    "columns": choice(item=[(30, (1, 4, 7))]),
    "kept": choice(user=[(12, ALL), (28, ())], tags=[(3, (2, 3)), (17, ())]),
    "pieces": choice(user=[(4, ALL), (6, (0, 1)), (10, ()), (20, (3,))], tags=[(5, (0, 1)), (15, (0,))]),
}


def table_rows(collection: PlannedEmbeddingBagCollection) -> dict[str, torch.Tensor]:
    return {key.split(".")[-2]: value for key, value in collection.state_dict().items() if key.endswith(".weight")}


def filled(which: Choice) -> tuple[PlannedEmbeddingBagCollection, PlannedEmbeddingBagCollection]:
    """Supernet and plan of a choice, the plan's tables cut out of the supernet's."""
    supernet = PlannedEmbeddingBagCollection(supernet_plan(SPACE, Mask))
    small = PlannedEmbeddingBagCollection(plan_of(SPACE, which))
    source, target = table_rows(supernet), table_rows(small)
    for entry, feature, pieces in zip(small.plan.features, FEATURES, which.features, strict=True):
        firsts = [sum(piece.size for piece in pieces[:number]) for number in range(len(pieces))]
        kept = [(first, piece) for first, piece in zip(firsts, pieces, strict=True) if piece.columns]
        for table, (first, piece) in zip(entry.tables, kept, strict=True):
            rows = source[f"table_{feature.name}"][first : first + piece.size]
            target[table][:, : len(piece.columns)] = rows[:, list(piece.columns)]
    try_out(masks_in(supernet, SPACE), which)
    return supernet, small


def every_id() -> KeyedJaggedTensor:
    """40 rows that hold each id of each feature; tags has several a row, and none."""
    rows = torch.arange(40)
    tags = torch.cat([torch.arange(20), torch.arange(20)])
    return KeyedJaggedTensor(
        keys=["user", "item", "tags"],
        values=torch.cat([rows, rows % 30, tags]),
        lengths=torch.cat([torch.ones(80, dtype=torch.int64), torch.tensor([2, 0] * 20)]),
    )


@pytest.mark.parametrize("name", CHOICES)
def test_a_plan_embeds_what_the_supernet_shows(name: str) -> None:
    which = CHOICES[name]
    supernet, small = filled(which)
    shown, planned = supernet(every_id()).to_dict(), small(every_id()).to_dict()
    for feature, pieces in zip(FEATURES, which.features, strict=True):
        expected, found = shown[feature.name], planned[feature.name]
        if all(piece.columns for piece in pieces):
            torch.testing.assert_close(found, expected)
        elif feature.max_length == 1:
            has_row = torch.cat([torch.full((piece.size,), bool(piece.columns)) for piece in pieces])[: len(expected)]
            torch.testing.assert_close(found[has_row], expected[has_row])
            assert not expected[~has_row].any()
            torch.testing.assert_close(found[~has_row], found[:1].expand_as(found[~has_row]))


def test_a_supernet_shows_everything_again_after_a_trial() -> None:
    supernet, _ = filled(CHOICES["kept"])
    less = supernet(every_id()).values()
    try_out(masks_in(supernet, SPACE), None)
    whole = supernet(every_id()).values()
    assert (less.abs() <= whole.abs() + 1e-6)[:, :16].all() and not torch.equal(less, whole)


def test_remap_and_combiner_script_to_the_same() -> None:
    ids = torch.arange(40)
    remap = KeptPieces(firsts=[0, 4, 20], sizes=[4, 6, 20])
    combiner = PieceColumns(firsts=[0, 4, 20], sizes=[4, 6, 20], columns=[list(ALL), [0, 1], [3]], embedding_dim=8)
    rows = remap(ids)
    assert torch.equal(torch.jit.script(remap)(ids), rows)
    tables = [torch.randn(size, width) for size, width in ((4, 8), (6, 2), (20, 1))]
    looked_up = [table[row] for table, row in zip(tables, rows, strict=True)]
    torch.testing.assert_close(torch.jit.script(combiner)(ids, looked_up), combiner(ids, looked_up))


def test_a_plan_edited_by_hand_is_refused_with_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="must have a first id and a size each"):
        KeptPieces(firsts=[0], sizes=[4, 6])
    with pytest.raises(ConfigError, match="begin where the one before ends"):
        PieceColumns(firsts=[0, 3], sizes=[4, 6], columns=[[0], [1]], embedding_dim=8)
    plan = plan_of(SPACE, CHOICES["columns"])
    entry = plan.features[1]
    for columns in ([1, 4, 9], [1, 4], [1, 4, 7, 6]):
        combiner = Component(entry.combiner.target, {**entry.combiner.params, "columns": columns})
        edited = replace(plan, features=(plan.features[0], replace(entry, combiner=combiner), *plan.features[2:]))
        with pytest.raises(ConfigError, match="plan of feature 'item'"):
            PlannedEmbeddingBagCollection(edited)
