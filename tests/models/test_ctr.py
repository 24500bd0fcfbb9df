"""`CtrModel` over TorchRec's own collection."""

import pytest
import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.models.ctr import CtrModel
from tests.models.world import FORMS, build, columns

SPARSE = KeyedJaggedTensor.from_lengths_sync(
    keys=["f0", "f1", "f2"],
    values=torch.tensor([4, 0, 6, 1, 2, 10, 3]),
    lengths=torch.tensor([1, 1, 1, 1, 2, 1]),  # f2 of row 0 holds two ids
)
DENSE = torch.tensor([[0.5, -1.0], [2.0, 0.0]])


def model_of(name: str) -> CtrModel:
    head = build(FORMS[name], 2)
    tables = [
        EmbeddingBagConfig(
            name=spec.name,
            feature_names=[spec.source],
            embedding_dim=spec.embedding_dim,
            num_embeddings=spec.num_embeddings or 0,
        )
        for spec in FORMS[name].features(columns())
    ]
    return CtrModel(EmbeddingBagCollection(tables=tables), head)


@pytest.mark.parametrize("name", ["lr", "dcnv2_parallel", "dcnv2_stacked", "dlrm_dot", "dlrm_cat"])
def test_reads_the_collections_features_in_order(name: str) -> None:
    model = model_of(name).eval()
    pooled = []
    for position, spec in enumerate(columns()):
        table = model.get_parameter(f"embeddings.embedding_bags.{spec.name}.weight")
        ids = [SPARSE.values()[SPARSE.offsets()[i] : SPARSE.offsets()[i + 1]] for i in (2 * position, 2 * position + 1)]
        pooled.append(torch.stack([table[of_row].sum(0) for of_row in ids]))
    torch.testing.assert_close(model(DENSE, SPARSE), model.head(DENSE, torch.cat(pooled, 1)))


@pytest.mark.parametrize("name", ["lr", "dcnv2_parallel", "dlrm_dot"])
def test_a_step_of_gradient_descent_lowers_the_loss(name: str) -> None:
    model, labels = model_of(name), torch.tensor([1.0, 0.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(DENSE, SPARSE), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_attribute_names_are_part_of_the_checkpoint_format() -> None:
    assert {key.split(".")[0] for key in model_of("dcnv2_parallel").state_dict()} == {"embeddings", "head"}
