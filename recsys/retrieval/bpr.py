"""Bayesian personalised ranking."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class BPRConfig(LossConfig):
    """softplus(negative - positive), averaged over a row's negatives.

    Source: Rendle et al., BPR, UAI 2009, arXiv:1205.2618; regularisation is `retrieval.regularizer`.
    """

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        return softplus(triples.negative_scores() - triples.positive_scores().unsqueeze(1)).mean(1).sum()
