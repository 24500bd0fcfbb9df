"""Table rows as they are stored: float32 to bytes and back, in the layouts that torch's `quantized` operators read."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.core.specs import RowType, TableSpec


def pack(table: Tensor, row_type: RowType) -> Tensor:
    """Store rows.

    Args:
        table: float32, shape (rows, embedding_dim).
        row_type: of the result.
    Returns:
        FLOAT32 as it is, FLOAT16 cast, else uint8 of shape (rows, `row_type.row_bytes(embedding_dim)`): codes, then
        the row's scale and bias, so that value = code * scale + bias. Scales are those that span the row's extremes.
    """
    if row_type is RowType.FLOAT32:
        return table
    if row_type is RowType.FLOAT16:
        return table.half()
    if row_type is RowType.INT8:
        packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(table)
        return packed
    return _pack_codes(table, row_type.bits)


def unpack(stored: Tensor, spec: TableSpec) -> Tensor:
    """What `pack` stored, as float32 (rows, `spec.embedding_dim`)."""
    if spec.row_type in (RowType.FLOAT32, RowType.FLOAT16):
        return stored.float()
    if spec.row_type is RowType.INT8:
        unpacked: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(stored)
        return unpacked
    bits = spec.row_type.bits
    codes = stored[:, :-4]
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    values = ((codes.unsqueeze(-1) >> shifts) & (2**bits - 1)).flatten(1)[:, : spec.embedding_dim]
    scale, bias = stored[:, -4:].clone(memory_format=torch.contiguous_format).view(torch.float16).float().unbind(1)
    rows: Tensor = values * scale.unsqueeze(1) + bias.unsqueeze(1)
    return rows


def pack_rows(codes: Tensor, scale: Tensor, bias: Tensor, row_type: RowType) -> Tensor:
    """Store rows of given codes, where a method has learned them.

    Args:
        codes: integers in [0, 2**bits), shape (rows, embedding_dim).
        scale: float32, shape (rows,).
        bias: float32, shape (rows,); value = code * scale + bias.
        row_type: INT8, INT4 or INT2; the last two round scale and bias to float16.
    Returns:
        uint8, shape (rows, row_bytes).
    """
    both = torch.stack([scale, bias], dim=1)
    if row_type is RowType.INT8:
        return torch.cat([codes.to(torch.uint8), both.float().contiguous().view(torch.uint8)], dim=1)
    bits = row_type.bits
    per_byte = 8 // bits
    padded = torch.nn.functional.pad(codes.to(torch.int32), (0, -codes.shape[1] % per_byte))
    shifts = torch.arange(0, 8, bits, dtype=torch.int32)
    packed = (padded.unflatten(1, (-1, per_byte)) << shifts).sum(-1).to(torch.uint8)
    return torch.cat([packed, both.half().contiguous().view(torch.uint8)], dim=1)


def _pack_codes(table: Tensor, bits: int) -> Tensor:
    # Not torch's prepack: it takes widths of whole bytes only, and its scale is not the one it stores after rounding.
    low, high = table.amin(1), table.amax(1)
    bias = low.half().float()
    scale = ((high - bias) / (2**bits - 1)).half().float()
    codes = ((table - bias.unsqueeze(1)) / scale.clamp(min=2**-24).unsqueeze(1)).round().clamp(0, 2**bits - 1)
    return pack_rows(codes, scale, bias, RowType.INT4 if bits == 4 else RowType.INT2)


def pack_tables(tables: Mapping[str, Tensor], specs: tuple[TableSpec, ...]) -> dict[str, Tensor]:
    """All float32 tables as their specs store them."""
    return {spec.name: pack(tables[spec.name], spec.row_type) for spec in specs}


def unpack_tables(tables: Mapping[str, Tensor], specs: tuple[TableSpec, ...]) -> dict[str, Tensor]:
    """All tables as float32."""
    return {spec.name: unpack(tables[spec.name], spec) for spec in specs}
