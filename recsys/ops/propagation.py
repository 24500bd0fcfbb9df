"""Propagation over a symmetric graph: a polynomial of its adjacency times node values, forward and backward alike.

Legend: N nodes, E edges in both directions, D columns, K the polynomial's degree.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class SparseRows:
    """A sparse matrix, rows compressed; its product with a dense one is all that propagation does.

    `offsets` int32 (R + 1,) for R rows, `columns` int32 (E,), `values` (E,) float32 or bfloat16.
    """

    def __init__(self, offsets: Tensor, columns: Tensor, values: Tensor) -> None:
        self.offsets, self.columns, self.values = offsets, columns, values

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, values: Tensor, *, num_rows: int) -> "SparseRows":
        """Of E entries in any order: int64 rows and columns, distinct pairs, and their values."""
        assert columns.numel() < 2**31, "indices are 32-bit"
        order = torch.argsort(columns, stable=True)
        order = order[torch.argsort(rows[order], stable=True)]
        offsets = torch.nn.functional.pad(torch.bincount(rows, minlength=num_rows).cumsum(0), (1, 0))
        return cls(offsets.int(), columns[order].int(), values[order].float())

    @property
    def num_rows(self) -> int:
        """Rows."""
        return self.offsets.numel() - 1

    @property
    def num_bytes(self) -> int:
        """Bytes of the three tensors."""
        return sum(t.numel() * t.element_size() for t in (self.offsets, self.columns, self.values))

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> "SparseRows":
        """The matrix on `device` with values of `dtype`."""
        return SparseRows(self.offsets.to(device), self.columns.to(device), self.values.to(device, dtype))

    def product(self, x: Tensor) -> Tensor:
        """This matrix, (R, C), times `x`, (C, D), in the type of `x`: (R, D).

        Source: `embedding_bag` sums weighted rows of a table, which is a row-compressed product; on CPUs it is the
        fastest one that torch has (design.md §4).
        """
        values = self.values.to(x.dtype)
        if x.is_cuda:
            size = (self.num_rows, x.shape[0])
            return torch.sparse_csr_tensor(self.offsets, self.columns, values, size, check_invariants=False) @ x
        return embedding_bag(
            self.columns, x, self.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )


def bipartite_adjacency(users: Tensor, items: Tensor, *, num_users: int, num_items: int) -> SparseRows:
    """D^-1/2 [0 R; R^T 0] D^-1/2 of distinct pairs: users are the first nodes, items follow; no self loops.

    Args:
        users: int64 (P,), in [0, num_users).
        items: int64 (P,), in [0, num_items).
        num_users: rows of R.
        num_items: columns of R.

    Returns:
        The symmetric matrix of N = num_users + num_items nodes, with 2 P entries. A node without edges has an empty
        row: its degree is never divided by.
    Source: He et al., LightGCN, SIGIR 2020, eq. 3 (symmetric normalisation, no self connection).
    """
    nodes = items + num_users
    degrees = torch.bincount(torch.cat([users, nodes]), minlength=num_users + num_items)
    values = (degrees[users].double() * degrees[nodes]).rsqrt().float()
    both = torch.cat([users, nodes]), torch.cat([nodes, users]), torch.cat([values, values])
    return SparseRows.of(*both, num_rows=num_users + num_items)


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, adjacency: SparseRows) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.adjacency = adjacency
        ctx.save_for_backward(x if weights.requires_grad else x[:0], weights)
        return _sum_of_powers(x, weights, adjacency)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:  # noqa: ANN401 - torch's own
        (gradient,) = gradients
        x, weights = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return _sum_of_powers(gradient, weights, ctx.adjacency), None, None
        # <g, A^k x> = <A^k g, x>: the powers that the gradient of x needs give that of the weights too.
        total, power, of_weights = gradient * weights[0], gradient, [_dot(gradient, x)]
        for weight in weights[1:]:
            power = ctx.adjacency.product(power)
            of_weights.append(_dot(power, x))
            total = total + weight * power
        return total, torch.stack(of_weights).to(weights.dtype), None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Summed in float64: its terms cancel, and ranks add them up in other orders."""
    return (a * b).sum(dtype=torch.float64)


def _sum_of_powers(x: Tensor, weights: Tensor, adjacency: SparseRows) -> Tensor:
    """`sum_k weights[k] A^k x` with K products and no more than three (N, D) tensors at a time (Horner's rule)."""
    factors: list[float] = weights.tolist()
    total: Tensor = x * factors[-1]
    for factor in reversed(factors[:-1]):
        total = adjacency.product(total)
        if factor:
            total.add_(x, alpha=factor)
    return total


def propagate(x: Tensor, weights: Tensor, adjacency: SparseRows) -> Tensor:
    """`sum_k weights[k] A^k x`, differentiable in `x` and `weights`.

    The matrix is symmetric, so the gradient of `x` is the same polynomial of the gradient: nothing of the layers is
    kept, and the backward pass costs what the forward pass does. Columns do not mix, so a rank may hold any of them.

    Args:
        x: (N, D), float32 or bfloat16; layers are stored in this type.
        weights: float32 (K + 1,), K >= 0.
        adjacency: of N nodes, on the device of `x`.

    Returns:
        (N, D), type of `x`.
    Source: He et al., LightGCN, SIGIR 2020, eq. 4-8; Horner's rule.
    """
    result: Tensor = _Polynomial.apply(x, weights, adjacency)  # type: ignore[no-untyped-call]
    return result


class _PolynomialRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        x: Tensor,
        weights: Tensor,
        adjacency: SparseRows,
        places: Tensor,
        storage: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        factors: list[float] = weights.tolist()
        # Detached, or `embedding_bag` keeps what its own backward pass would need.
        own, power = x.index_select(0, places), x.detach().to(storage)
        layers = [own]
        for _ in factors[1:]:
            power = adjacency.product(power)
            layers.append(power.index_select(0, places).float())
        total = own * factors[0]
        for factor, layer in zip(factors[1:], layers[1:], strict=True):
            total.add_(layer, alpha=factor)
        ctx.adjacency, ctx.factors, ctx.size, ctx.storage = adjacency, factors, x.shape, storage
        ctx.save_for_backward(places, torch.stack(layers) if weights.requires_grad else x[:0])
        return own, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        places, layers = ctx.saved_tensors
        of_own, of_total = gradients
        # Places repeat; each sum is made in float32 before anything is rounded to the storage type.
        rows, inverse = torch.unique(places, return_inverse=True)
        summed = of_total.new_zeros(2, rows.numel(), ctx.size[1])
        summed[0].index_add_(0, inverse, of_total)
        summed[1].index_add_(0, inverse, of_own)
        of_x = _powers_of_rows(summed[0], rows, ctx.factors, ctx.adjacency, ctx.storage)
        of_x.index_add_(0, rows, summed[1])
        of_weights = None
        if ctx.needs_input_grad[1]:
            of_weights = torch.stack([_dot(of_total, layer) for layer in layers]).float()
        return of_x, of_weights, None, None, None


def _powers_of_rows(
    values: Tensor, rows: Tensor, factors: list[float], adjacency: SparseRows, storage: torch.dtype
) -> Tensor:
    """`sum_k factors[k] A^k x`, float32 (N, D), of an `x` that has `values` in distinct `rows` and zeros elsewhere."""
    total = values.new_zeros(adjacency.num_rows, values.shape[1], dtype=storage)
    total.index_copy_(0, rows, (values * factors[-1]).to(storage))
    for factor in reversed(factors[:-1]):
        total = adjacency.product(total)
        if factor:
            total.index_add_(0, rows, (values * factor).to(storage))
    return total.float()


def propagate_rows(
    x: Tensor, weights: Tensor, adjacency: SparseRows, places: Tensor, storage: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Some rows of `x` and of `propagate`'s result, differentiable in `x` and `weights`.

    A step of training looks at the rows of its batch alone, so nothing but the products runs over all nodes: no sum of
    layers, no gradient of rows that nobody looked at. As with `propagate`, nothing of the layers is kept.

    Args:
        x: float32 (N, D).
        weights: float32 (K + 1,), K >= 0.
        adjacency: of N nodes, on the device of `x`.
        places: int64 (P,), in [0, N); may repeat.
        storage: type of the layers in memory, float32 or bfloat16; sums are float32.

    Returns:
        (x, sum_k weights[k] A^k x) in these places, float32 (P, D) each.
    """
    own, total = _PolynomialRows.apply(x, weights, adjacency, places, storage)  # type: ignore[no-untyped-call]
    return own, total
