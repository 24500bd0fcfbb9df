"""`SequenceModel`: histories that belong together are equally long, or nothing is said about them."""

import pytest
import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec, Pooling, Read
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.models.ctr import SequenceModel
from tests.embeddings.dense_reference import jagged


class Sums(nn.Module):
    """Adds up all that it is given."""

    def forward(self, dense: Tensor, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        return dense.sum(1) + embeddings.sum(1) + torch.stack([part.sum((1, 2)) for part in sequences]).sum(0)


def feature(name: str) -> FeatureSpec:
    history = Read(name=f"seen_{name}", source=f"seen_{name}", pooling=Pooling.NONE)
    return FeatureSpec(name=name, embedding_dim=4, num_embeddings=9, max_length=1, also=(history,))


def score(seen_item: list[list[int]], seen_kind: list[list[int]]) -> Tensor:
    plan = FullConfig().plan([feature("item"), feature("kind")])
    model = SequenceModel(PlannedEmbeddingBagCollection(plan), Sums())
    bags = {"item": [[1], [2]], "kind": [[3], [4]], "seen_item": seen_item, "seen_kind": seen_kind}
    logits: Tensor = model(torch.zeros(2, 0), jagged(bags))
    return logits


def test_equally_long_histories_are_read() -> None:
    assert score([[], [1, 2]], [[], [3, 3]]).shape == (2,)


@pytest.mark.parametrize("seen_kind", [[[1], [3]], [[], [3]], [[], [3, 3, 3]]])
def test_histories_of_different_lengths_are_refused(seen_kind: list[list[int]]) -> None:
    with pytest.raises(RuntimeError, match="histories of different lengths"):
        score([[], [1, 2]], seen_kind)
