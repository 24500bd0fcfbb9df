"""Softmax over the positives of a batch: each row's negatives are the other rows' items."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples

ROWS_AT_ONCE = 128
"""Rows whose logits are held at a time: few enough for a processor's cache, many enough for its matrix units."""


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmaxConfig(LossConfig):
    """Cross entropy of a row's item among the batch's items, all of them looked up anyway.

    Another row's item that is the row's own (the same id) is no negative. Popular items are in more batches, which
    `correct` undoes.
    Source: Yi et al., Sampling-bias-corrected neural modeling, RecSys 2019, eq. 2-4.
    """

    needs_negatives: ClassVar[bool] = False

    temperature: float = 0.2  # scores are divided by it
    correct: bool = False  # subtract log Q of the batch's items

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"retrieval.loss.temperature={self.temperature}: must be above 0.")

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        ids = triples.positive_ids
        items, own, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        rows = torch.arange(ids.numel(), device=ids.device)
        first = torch.full_like(items, ids.numel()).scatter_reduce_(0, own, rows, "amin")
        # An item that n rows have is a negative n times for the others: its logit is log n higher.
        as_negative = counts.float().log()
        as_positive = torch.zeros_like(as_negative)
        if self.correct:
            as_positive = -triples.log_positive[items]
            as_negative = as_negative + as_positive
        scores = triples.users / self.temperature, triples.positives.index_select(0, first)
        loss: Tensor = _ChunkedSoftmax.apply(*scores, as_negative, as_positive, own)  # type: ignore[no-untyped-call]
        return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Cross entropy and its gradients in one go over chunks of rows: no (B, V) matrix, forward or backward."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        users: Tensor,
        items: Tensor,
        as_negative: Tensor,
        as_positive: Tensor,
        own: Tensor,
    ) -> Tensor:
        """Sum over rows; `users` (B, d), `items` (V, d), what to add to logits (V,), `own` int64 (B,), in [0, V)."""
        kind = _product_type(users)
        of_users, of_items, loss = torch.empty_like(users), torch.zeros_like(items), users.new_zeros(())
        rounded, transposed = items.to(kind), items.to(kind).t()
        for start in range(0, users.shape[0], ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            rows, column = users[part], own[part].unsqueeze(1)
            logits = (rows.to(kind) @ transposed).float()
            positive = logits.gather(1, column) + as_positive[column]
            logits.add_(as_negative).scatter_(1, column, positive)
            highest = logits.amax(1, keepdim=True)
            sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
            loss += (sums.log() + highest - positive).sum()
            shares = logits.to(kind)  # not yet divided by their sums, which the thinner factor is
            of_users[part] = (shares @ rounded).float() / sums - items[own[part]]
            of_items += (shares.t() @ (rows / sums).to(kind)).float()
        of_items.index_add_(0, own, users, alpha=-1)
        ctx.save_for_backward(of_users, of_items)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        of_users, of_items = ctx.saved_tensors
        return of_users * gradients[0], of_items * gradients[0], None, None, None


def _product_type(like: Tensor) -> torch.dtype:
    """Type of matrix products: autocast's, where that is on; it would convert the same operands once a chunk."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype
