"""Blocks of heads that weigh the events of a history by the target, and sum them: ATen operators only.

Histories come as several sequences, (B, L, d) each, zeros after a row's last event; step t of all is one event. Steps
beyond a row's length weigh nothing, so an empty history sums to zeros.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.models.activations import Activation
from recsys.models.histories import History
from recsys.models.layers import MLP, linear


def unpadded(steps: Tensor, lengths: Tensor) -> Tensor:
    """Which of the steps (B, L, d) are events: bool (B, L), true at the first `lengths` (int64 (B,)) of each row."""
    # Positions by a cumulative sum: `arange` of a traced size cannot be traced.
    return torch.ones_like(steps[:, :, 0], dtype=torch.int64).cumsum(1) <= lengths.unsqueeze(1)


def softmax_over(scores: Tensor, there: Tensor) -> Tensor:
    """Weights of the steps that are there: float32 (B, L), rows sum to 1, or to 0 where no step is."""
    # The mask is a finite number: a row of nothing else must not become NaN.
    return torch.softmax(scores.float().masked_fill(~there, -3e38), 1) * there


def best_events(scores: Tensor, there: Tensor, *, top_k: int) -> tuple[Tensor, Tensor]:
    """The `top_k` events of highest score in each row, and the softmax over them.

    Returns:
        weights: float32 (B, top_k), 0 where a row has fewer events.
        places: int64 (B * top_k,), numbers of these events among the B * L steps of all rows.
    """
    # As many places more as are asked for: the longest history of a batch may have fewer steps than top_k.
    padded_scores, padded_there = nn.functional.pad(scores.float(), (0, top_k)), nn.functional.pad(there, (0, top_k))
    best, steps = torch.topk(padded_scores.masked_fill(~padded_there, -3e38), top_k, dim=1, sorted=False)
    weights = softmax_over(best, padded_there.gather(1, steps))
    rows = torch.ones_like(steps[:, :1]).cumsum(0) - 1
    return weights, (steps.clamp(max=there.size(1) - 1) + there.size(1) * rows).flatten()


def weighted_sum(weights: Tensor, steps: list[Tensor]) -> Tensor:
    """Sum over steps of weight times embedding: (B, sum of d), from weights (B, L) and steps (B, L, d) each."""
    return torch.cat([torch.bmm(weights.unsqueeze(1), step).squeeze(1) for step in steps], 1)


def rows_at(places: Tensor, steps: list[Tensor], num_places: int) -> list[Tensor]:
    """Of steps (B, L, d) each, those at `places` of `best_events`: (B, num_places, d) each."""
    return [step.flatten(0, 1).index_select(0, places).view(-1, num_places, step.size(2)) for step in steps]


class HistoryReader(nn.Module):
    """Picks histories, their targets and time gaps out of what a head reads."""

    without_target: list[int]

    def __init__(self, histories: Sequence[History]) -> None:
        super().__init__()
        of_targets = [history for history in histories if history.target >= 0]
        of_gaps = [history for history in histories if history.target < 0]
        self.spans = [(history.target, history.target + history.width) for history in of_targets]
        self.with_target = [history.sequence for history in of_targets]
        self.without_target = [history.sequence for history in of_gaps]
        self.query_width = sum(history.width for history in of_targets)
        self.gap_width = sum(history.width for history in of_gaps)

    def targets(self, embeddings: Tensor) -> list[Tensor]:
        """The targets, (B, d) each, from pooled embeddings."""
        return [embeddings[:, start:end] for start, end in self.spans]

    def steps(self, sequences: list[Tensor]) -> list[Tensor]:
        """Their histories, (B, L, d) each, in the order of `targets`."""
        return [sequences[i] for i in self.with_target]

    def gaps(self, sequences: list[Tensor]) -> list[Tensor]:
        """The time gaps, (B, L, d); one or none."""
        return [sequences[i] for i in self.without_target]


class ActivationUnit(nn.Module):
    """Score of each event, MLP([q, q - k, q * k, k, time gap]).

    Events of all rows are scored as one matrix without the padding, most of the work of a batch of uneven histories:
    at half the longest's length on average it takes less than half the time. Splitting the first layer to multiply q
    once a row, not once an event, gains nothing measurable beyond that.
    Source: Zhou et al., Deep Interest Network, KDD 2018, fig. 2; q - k and q * k stand for its outer product, as in
    the authors' code.
    """

    def __init__(
        self, query_width: int, gap_width: int, *, units: Sequence[int], activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        self.query_width = query_width
        width = 4 * query_width + gap_width
        self.mlp = MLP(width, units, batch_norm=False, dropout=dropout, activation=activation)
        self.output = linear(units[-1], 1)

    def forward(self, targets: list[Tensor], steps: list[Tensor], gaps: list[Tensor], there: Tensor) -> Tensor:
        """Return scores, (B, L) of the layers' type; 0 where no event is.

        Args:
            targets: (B, d) each.
            steps: their histories, (B, L, d) each.
            gaps: one sequence (B, L, gap_width), or none.
            there: bool (B, L), true where an event is.
        """
        events = there.flatten().nonzero().squeeze(1)
        rows = torch.div(events, there.size(1), rounding_mode="floor")
        of_events = torch.cat([step.flatten(0, 1).index_select(0, events) for step in steps + gaps], 1)
        query, key = torch.cat(targets, 1).index_select(0, rows), of_events[:, : self.query_width]
        scores = self.output(self.mlp(torch.cat([query, query - key, query * key, of_events], 1))).squeeze(1)
        return torch.zeros_like(there, dtype=scores.dtype).flatten().index_copy(0, events, scores).view_as(there)


class TargetAttention(nn.Module):
    """Score of each event, <q, k> / sqrt(d) + <t_q, t> / sqrt(d_t), of its time gap t and a learned t_q.

    Source: Feng et al., DARE, ICLR 2025, arXiv:2410.02604, and Chang et al., TWIN, KDD 2023, arXiv:2302.02352. In
    DARE's code t_q is the row of the gaps' table that all targets read.
    """

    def __init__(self, query_width: int, gap_width: int) -> None:
        super().__init__()
        self.scale = query_width**-0.5
        self.gap_scale = max(gap_width, 1) ** -0.5
        self.now = linear(gap_width, 1, bias=False) if gap_width > 0 else None

    def forward(self, targets: list[Tensor], steps: list[Tensor], gaps: list[Tensor]) -> Tensor:
        """Return scores, (B, L); arguments as of `ActivationUnit`."""
        # One product a column: to lay the columns side by side would take longer than all the rest.
        products = [torch.bmm(step, target.unsqueeze(2)) for step, target in zip(steps, targets, strict=False)]
        scores: Tensor = torch.stack(products).sum(0).squeeze(2) * self.scale
        if self.now is not None:
            scores = scores + self.now(gaps[0]).squeeze(2) * self.gap_scale
        return scores
