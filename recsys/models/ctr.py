"""`CtrModel`: a collection of embeddings and a head; `ModelConfig`: what every model's configuration offers."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.specs import FeatureSpec


class ModelConfig(Protocol):
    """A model's configuration: says which embeddings the model wants, then builds its head."""

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """The features to embed, in the order in which the head reads them.

        Args:
            categorical: one feature per categorical column; their `embedding_dim` is replaced by the model's.
        """

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head, `forward(dense (B, num_dense), embeddings (B, sum of embedding_dim)) -> logits (B,)`.

        While `self.training`, forward may return (B, 1 + S) instead: column 0 the logits, the others those of the S
        streams whose mean or sum they are. The loss then teaches each stream the probability of column 0, which it
        holds constant (FinalNet's self-distillation; see `ClickTask`). In evaluation every head returns (B,).

        Args:
            features: what `features` returned; widths may have been changed by a dimension search.
            num_dense: numeric columns, 0 or more.
        Raises:
            ConfigError: the head cannot work on features of these widths.
        """


class CtrModel(nn.Module):
    """Embeddings and head as one module, ready for `DistributedModelParallel`.

    `embeddings` must return the features in the order that the head was built for. A `PlannedEmbeddingBagCollection`
    does so however it is sharded; TorchRec's own collection does so while it is not sharded.
    """

    def __init__(self, embeddings: EmbeddingBagCollectionInterface, head: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = head

    def forward(self, dense: Tensor, sparse: KeyedJaggedTensor) -> Tensor:
        """Return click logits, float32, shape (B,); while training as the head does, which may be (B, 1 + S).

        Args:
            dense: float32 (B, num_dense).
            sparse: ids of B rows, keyed by source column.

        Returns:
            logits (B,), or, from some heads in training mode only, (B, 1 + S): see `ModelConfig.build`.
        """
        # `values()`, not a lookup by key: the features lie side by side already, so that nothing is copied.
        logits: Tensor = self.head(dense, self.embeddings(sparse).values())
        return logits
