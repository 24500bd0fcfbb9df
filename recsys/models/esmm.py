"""ESMM: the probability of each label is that of the label before times its own given that one, over all rows.

Of clicks and purchases: p(click), and p(click and purchase) = p(click) p(purchase | click). No row is left out, so what
is learned of purchases is not biased to clicked rows.
Source: Ma et al., Entire Space Multi-Task Model, SIGIR 2018, eq. 1 to 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import total_width
from recsys.models.towers import TasksConfig, Towers


@dataclass(frozen=True, kw_only=True)
class ESMMConfig(TasksConfig):
    """Learns all labels of the schema, each of which is 1 only where the one before is; or one alone."""

    tower_units: list[int] = field(default_factory=lambda: [360, 200, 80])  # widths of each task's MLP, as published

    @property
    def labels_nest(self) -> bool:
        """Probabilities are multiplied along the labels."""
        return True

    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """The head; see `MultiTask.build_tasks`."""
        return ESMM(self, total_width(features, model="esmm"), num_dense, num_tasks)


class ESMM(nn.Module):
    """p_t = product over s <= t of sigmoid(tower_s([embeddings; dense])); its logit."""

    has_dense: Final[bool]
    num_tasks: Final[int]

    def __init__(self, config: ESMMConfig, embeddings_width: int, num_dense: int, num_tasks: int) -> None:
        super().__init__()
        self.has_dense, self.num_tasks = num_dense > 0, num_tasks
        width, batch_norm, dropout = embeddings_width + num_dense, config.batch_norm, config.dropout
        self.towers = Towers(width, config.tower_units, num_tasks, batch_norm=batch_norm, dropout=dropout)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B, T) or (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        own: Tensor = self.towers([inputs] * self.num_tasks)
        if self.num_tasks == 1:
            return own
        # The first logit is its tower's, exactly; the others by logarithms of probabilities, which do not run out, but
        # where a probability is 1 in float32.
        logs = torch.nn.functional.logsigmoid(own).cumsum(1)[:, 1:].clamp(max=-1e-30)
        return torch.cat([own[:, :1], logs - torch.log(-torch.expm1(logs))], 1)
