"""The file of every method's embeddings takes the bytes of its plan, and what is stated for code and headers."""

from dataclasses import replace

import pytest

from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.export.script import script_model
from recsys.export.serving import ServingEmbeddings
from tests.contract.methods import METHODS, load, planned
from tests.embeddings import dense_reference as reference
from tests.export.constant import EMBEDDINGS_ONLY, stated_constant

LARGER = (
    FeatureSpec(name="user", embedding_dim=16, num_embeddings=6000, max_length=1, octave_counts=(99,) * 13),
    FeatureSpec(name="item", embedding_dim=16, num_embeddings=3000, max_length=1, octave_counts=(99,) * 12),
)
SMALL = tuple(
    FeatureSpec(
        name=f"feature_{number}", embedding_dim=16, num_embeddings=size, octave_counts=(99,) * (size - 1).bit_length()
    )
    for number, size in enumerate(range(40, 448, 34))
)


@pytest.mark.parametrize("features", [LARGER, SMALL], ids=["two_larger", "twelve_small"])
@pytest.mark.parametrize("method", METHODS)
def test_exported_bytes_are_those_of_the_plan(method: str, features: tuple[FeatureSpec, ...]) -> None:
    """Within 2 %, and what `ModelFile` states for what holds them, the most of the file where features are small."""
    config = load(method)
    plan = planned(replace(config, compression_ratio=2), features)[0] or config.plan(features)
    collection = PlannedEmbeddingBagCollection(plan)
    tables = {name: table.detach() for name, table in reference.dense_tables(plan, collection).items()}
    served = config.freeze(parts_of(collection, tables))
    exported = script_model(ServingEmbeddings(served, [f.name for f in features])).save_to_buffer()
    constant = stated_constant(exported, served.plan, base_kib=EMBEDDINGS_ONLY)
    num_bytes = served.plan.num_bytes
    assert num_bytes * 0.98 <= len(exported) <= num_bytes * (1.02 if features is LARGER else 1) + constant
