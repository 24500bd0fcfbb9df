"""Hard negatives: of some items that the user did not meet, those that the model now scores highest."""

from dataclasses import dataclass

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.sampler import NegativeSampler, SamplerConfig
from recsys.retrieval.uniform import UniformNegatives


@dataclass(frozen=True, kw_only=True)
class HardConfig(SamplerConfig):
    """Dynamic negative sampling: `num_negatives` are drawn alike from all, the loss sees the hardest of them.

    Probabilities that a softmax corrects by are those of the draw, before the choice.
    Source: Zhang et al., Optimizing top-N collaborative filtering via dynamic negative item sampling, SIGIR 2013.
    """

    num_negatives: int = 16
    num_hardest: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_hardest <= self.num_negatives:
            raise ConfigError(
                f"retrieval.sampler.num_hardest={self.num_hardest}: must lie in [1, num_negatives="
                f"{self.num_negatives}]."
            )

    @property
    def num_kept(self) -> int:
        """Of the drawn ones."""
        return self.num_hardest

    def negatives(self, interactions: Interactions) -> NegativeSampler:
        """The sampler of the items to choose from."""
        return UniformNegatives(interactions)
