"""What tests of methods that train rows on grids share: features and trained parts."""

from recsys.core.parts import EmbeddingParts
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.embeddings.grid import GridConfig
from tests.embeddings import dense_reference as reference

FEATURES = [
    FeatureSpec(name="a", embedding_dim=10, num_embeddings=50, max_length=4, pooling=Pooling.MEAN),
    FeatureSpec(name="b", embedding_dim=10, num_embeddings=7, max_length=1),
    FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=50, source="a"),
]


def trained(config: GridConfig) -> tuple[PlannedEmbeddingBagCollection, EmbeddingParts]:
    """Rows of order 1; steps moved away from their first value, those of rows 10 percent apart."""
    collection = PlannedEmbeddingBagCollection(config.plan(FEATURES)).eval()
    reference.randomise(collection, seed=0)
    for name, parameter in collection.named_parameters():
        if name.endswith("log_ratio"):
            parameter.data.fill_(0.37)
    tables = reference.dense_tables(collection.plan, collection)
    return collection, parts_of(collection, {name: table.detach() for name, table in tables.items()})
