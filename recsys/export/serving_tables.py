"""Physical tables of an exported model: bags of rows of each row type, with ATen and `quantized` operators only."""

import torch
from torch import Tensor, nn

from recsys.core.specs import RowType, TableSpec


def sum_bags(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum the values of each bag: (N, D), (bags + 1,) -> (bags, D); an empty bag gives 0."""
    ids = torch.arange(values.size(0), device=values.device)
    # One row of zeros, because embedding_bag refuses a table without rows.
    table = torch.cat([values, values.new_zeros((1, values.size(1)))])
    return torch.embedding_bag(table, ids, offsets, False, 0, False, None, True)[0]


def joined_bags(values: list[Tensor], offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One column after the other: values (N,) of all, and the offsets, int64 (bags + 1,), of all bags among them."""
    if len(values) == 1:
        return values[0], offsets[0]
    base = 0
    starts: list[Tensor] = []
    for own_values, own_offsets in zip(values, offsets, strict=False):
        starts.append(own_offsets[:-1] + base)
        base += own_values.size(0)
    starts.append(torch.full((1,), base, dtype=torch.int64, device=values[0].device))
    return torch.cat(values), torch.cat(starts)


class FloatTable(nn.Module):
    """Rows of float32."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        return torch.embedding_bag(self.weight, rows, offsets, False, 0, False, None, True)[0]


class HalfTable(nn.Module):
    """Rows of float16."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the rows of each bag in float32: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        # embedding_bag would round its sums to float16.
        return sum_bags(self.weight.index_select(0, rows).to(torch.float32), offsets)


class ByteTable(nn.Module):
    """Rows of one byte a value with a float32 scale and bias each."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the dequantized rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(  # type: ignore[no-any-return]
            self.weight, rows, offsets, False, 0, False, None, None, True
        )


class PackedTable(nn.Module):
    """Rows of four or two bits a value with a float16 scale and bias each."""

    weight: Tensor

    def __init__(self, weight: Tensor, embedding_dim: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.embedding_dim = embedding_dim  # the last byte of a row may hold fewer values than it could
        self.register_buffer("weight", weight)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Sum the dequantized rows of each bag: (N,), (bags + 1,) -> float32 (bags, D); an empty bag gives 0."""
        if self.bits == 4:
            pooled = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
                self.weight, rows, offsets, False, 0, False, None, None, True
            )
        else:
            pooled = torch.ops.quantized.embedding_bag_2bit_rowwise_offsets(
                self.weight, rows, offsets, False, 0, False, None, None, True
            )
        values: Tensor = pooled[:, : self.embedding_dim]
        return values


def table_module(weight: Tensor, spec: TableSpec) -> nn.Module:
    """The table of that row type; `weight` is packed as `core.row_storage` says."""
    if spec.row_type is RowType.INT8:
        return ByteTable(weight)
    if spec.row_type in (RowType.INT4, RowType.INT2):
        return PackedTable(weight, spec.embedding_dim, spec.row_type.bits)
    return HalfTable(weight) if spec.row_type is RowType.FLOAT16 else FloatTable(weight)
