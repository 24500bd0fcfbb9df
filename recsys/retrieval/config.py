"""Configuration of a retrieval run."""

from dataclasses import dataclass, field
from enum import Enum

from recsys.core.errors import ConfigError
from recsys.retrieval.bpr import BPRConfig
from recsys.retrieval.ccl import CCLConfig
from recsys.retrieval.encoder import EncoderConfig, RetrieverConfig
from recsys.retrieval.fast_rp import FastRPConfig
from recsys.retrieval.lightgcn import LightGCNConfig
from recsys.retrieval.loss import LossConfig
from recsys.retrieval.sampler import SamplerConfig
from recsys.retrieval.uniform import UniformConfig


class Similarity(Enum):
    """What a score is."""

    DOT = "dot"
    COSINE = "cosine"


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Model, loss and sampler of users and items, and how they are ranked."""

    model: RetrieverConfig = field(default_factory=LightGCNConfig)
    loss: LossConfig = field(default_factory=BPRConfig)
    sampler: SamplerConfig = field(default_factory=UniformConfig)
    start: FastRPConfig | None = None  # vectors that training starts from, as wide as the model's; None: from chance
    similarity: Similarity = Similarity.DOT
    # Times half the squared norms of a batch's rows as looked up (layer 0), in the mean over rows. LightGCN's decay.
    regularizer: float = 1e-4
    # While the model learns from all that is known (refit, or no validation): rank for test after every epoch too and
    # tell the best figure, labelled, as most publications select theirs. It chooses nothing.
    watch_test: bool = False
    refit: bool = False  # train anew on train and validation for as many epochs as validation chose
    monitor_k: int = 20  # recall at so many places chooses the epoch
    num_validation_users: int = 0  # drawn to choose the epoch; 0: all that have validation pairs
    top_k: tuple[int, ...] = (10, 20, 50)  # places that the test is reported at
    users_at_once: int = 128  # in evaluation: memory is 4 bytes a user and item; matrices of some 20 MB are fastest

    def __post_init__(self) -> None:
        if self.start is not None:
            self._check_start(self.start)
        if not self.regularizer >= 0:
            raise ConfigError(f"retrieval.regularizer={self.regularizer}: must be 0 or more.")
        for name, least in (("monitor_k", 1), ("num_validation_users", 0), ("users_at_once", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"retrieval.{name}={getattr(self, name)}: must be {least} or more.")
        if not self.top_k or min(self.top_k) < 1:
            raise ConfigError(
                f"retrieval.top_k={list(self.top_k)}: name at least one number of places, each 1 or more."
            )

    @property
    def without_effect(self) -> str:
        """What was chosen and changes nothing, or does not do what it is for; empty: nothing."""
        drawn = not isinstance(self.sampler, UniformConfig) or self.sampler.num_negatives > 1
        if drawn and not self.loss.needs_negatives:
            return (
                "retrieval.loss draws no negatives, so nothing of retrieval.sampler but positives has an effect. "
                "bpr, sampled_softmax, ccl and degree_weighted draw them."
            )
        if isinstance(self.loss, CCLConfig) and self.similarity is Similarity.DOT:
            return "retrieval/loss=ccl has a margin for cosines: of dot products, set retrieval.similarity=cosine."
        return ""

    def _check_start(self, start: FastRPConfig) -> None:
        if not isinstance(self.model, EncoderConfig):
            raise ConfigError("retrieval.start with a model that is not trained: set retrieval/start=null.")
        if start.embedding_dim != self.model.embedding_dim:
            raise ConfigError(
                f"retrieval.start.embedding_dim={start.embedding_dim} and retrieval.model.embedding_dim="
                f"{self.model.embedding_dim}: rows of the tables start as these vectors. Make them equal."
            )
