"""`CtrModel`: a collection of embeddings and a head; `ModelConfig`: what every model's configuration offers."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from recsys.core.padding import padded
from recsys.core.specs import FeatureSpec


class ModelConfig(Protocol):
    """A model's configuration: says which embeddings the model wants, then builds its head."""

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """The features to embed, in the order in which the head reads them.

        Args:
            categorical: one feature per vocabulary, with all columns that read it; their `embedding_dim` is replaced by
                the model's. A model that wants the ids of a column apart, in order, gives it `Pooling.NONE`.
        """

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head, `forward(dense (B, num_dense), embeddings (B, sum of embedding_dim)) -> logits (B,)`.

        Where features are not pooled, `forward(dense, embeddings, sequences, lengths)`: for each of them, in order, its
        embeddings (B, L, embedding_dim), zeros after the row's last, and its lengths, int64 (B,).

        While `self.training`, forward may return (B, 1 + S) instead: column 0 the logits, the others those of the S
        streams whose mean or sum they are. The loss then teaches each stream the probability of column 0, which it
        holds constant (FinalNet's self-distillation; see `ClickTask`). In evaluation every head returns (B,).

        Args:
            features: one for each embedding that comes out, as `FeatureSpec.outputs` of what `features` returned;
                widths may have been changed by a dimension search.
            num_dense: numeric columns, 0 or more.
        Raises:
            ConfigError: the head cannot work on features of these widths.
        """


@runtime_checkable
class MultiTask(Protocol):
    """A model's configuration that learns several labels at once. Its `build` is that of one task."""

    @property
    def labels_nest(self) -> bool:
        """Whether it takes each label to be 1 only where the one before is."""

    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """As `ModelConfig.build`, but the head returns logits (B, num_tasks), the main task's first.

        Args:
            features: as there.
            num_dense: as there.
            num_tasks: labels of the schema, 2 or more.
        """


@runtime_checkable
class Regularized(Protocol):
    """A model's configuration that has L2 on the embeddings of each batch's ids; 0: none. See `BatchRegularizer`."""

    @property
    def batch_regularizer(self) -> float:
        """The penalty's lambda."""


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
        """Return click logits, float32, shape (B,), or of T tasks (B, T).

        Args:
            dense: float32 (B, num_dense).
            sparse: ids of B rows, keyed by source column.

        Returns:
            logits (B,), or (B, T); or, from some heads in training mode only, (B, 1 + S): see `ModelConfig.build`.
        """
        # `values()`, not a lookup by key: the features lie side by side already, so that nothing is copied.
        logits: Tensor = self.head(dense, self.embeddings(sparse).values())
        return logits


class SequenceEmbeddings(Protocol):
    """A collection whose plan leaves some features unpooled."""

    def embed(self, features: KeyedJaggedTensor) -> "Embedded":
        """Pooled embeddings and sequences of a batch."""


class Embedded(Protocol):
    """What such a collection gives."""

    @property
    def pooled(self) -> KeyedTensor:
        """Features side by side."""

    @property
    def sequences(self) -> Mapping[str, JaggedTensor]:
        """Embeddings by id of the others, in the plan's order."""


UNEQUAL_HISTORIES = (
    "a row has histories of different lengths: the columns that a sequence model reads (items, their attributes, time "
    "gaps) must hold one value for each event. Write an empty value where an event lacks one, and ingest again."
)


class SequenceModel(nn.Module):
    """As `CtrModel`, for a head that reads sequences."""

    def __init__(self, embeddings: SequenceEmbeddings, head: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = head

    def forward(self, dense: Tensor, sparse: KeyedJaggedTensor) -> Tensor:
        """Return click logits, float32, shape (B,) or (B, T); arguments as of `CtrModel`."""
        embedded = self.embeddings.embed(sparse)
        jagged = list(embedded.sequences.values())
        sequences = [padded(sequence.values(), sequence.lengths()) for sequence in jagged]
        lengths = [sequence.lengths() for sequence in jagged]
        for others in lengths[1:]:
            torch._assert_async((others == lengths[0]).all(), UNEQUAL_HISTORIES)
        logits: Tensor = self.head(dense, embedded.pooled.values(), sequences, lengths)
        return logits
