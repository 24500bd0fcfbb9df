"""Stored rows: torch's operators read what is packed, errors keep within half a step, bytes are those of the type."""

import pytest
import torch

from recsys.core.row_storage import pack, pack_rows, unpack
from recsys.core.specs import RowType, TableSpec


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 10, 16])
@pytest.mark.parametrize("row_type", RowType)
def test_rows_come_back_within_half_a_step(row_type: RowType, width: int, rows: int) -> None:
    table = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    stored = pack(table, row_type)
    assert stored.numel() * stored.element_size() == rows * row_type.row_bytes(width)
    back = unpack(stored, TableSpec(name="t", num_embeddings=rows, embedding_dim=width, row_type=row_type))
    assert back.shape == table.shape and back.dtype == torch.float32
    step = (table.amax(1) - table.amin(1)) / (2**row_type.bits - 1) if row_type.value.startswith("int") else 0
    # float16 scale and bias move a value by some 2**-11 of its size
    bound = (torch.as_tensor(step) / 2 + 0.004).expand(rows).unsqueeze(1)
    if row_type is not RowType.FLOAT32:
        assert ((back - table).abs() <= bound).all()
    else:
        assert torch.equal(back, table)


@pytest.mark.parametrize(("row_type", "width"), [(RowType.INT4, 6), (RowType.INT4, 16), (RowType.INT2, 8)])
def test_torch_reads_what_is_packed(row_type: RowType, width: int) -> None:
    table = torch.randn(9, width, generator=torch.Generator().manual_seed(1))
    stored = pack(table, row_type)
    lookup = getattr(torch.ops.quantized, f"embedding_bag_{row_type.bits}bit_rowwise_offsets")
    rows, offsets = torch.tensor([3, 3, 8, 0]), torch.tensor([0, 2, 2, 4])
    got = lookup(stored, rows, offsets, False, 0, False, None, None, True)
    spec = TableSpec(name="t", num_embeddings=9, embedding_dim=width, row_type=row_type)
    want = torch.nn.functional.embedding_bag(rows, unpack(stored, spec), offsets, mode="sum", include_last_offset=True)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("row_type", [RowType.INT8, RowType.INT4, RowType.INT2])
def test_learned_codes_are_kept(row_type: RowType) -> None:
    codes = torch.arange(12).reshape(3, 4) % 2**row_type.bits
    scale, bias = torch.tensor([0.5, 0.25, 1.0]), torch.tensor([-1.0, 0.0, 2.0])
    stored = pack_rows(codes, scale, bias, row_type)
    spec = TableSpec(name="t", num_embeddings=3, embedding_dim=4, row_type=row_type)
    assert torch.equal(unpack(stored, spec), codes * scale.unsqueeze(1) + bias.unsqueeze(1))


def test_constant_rows_stay_what_they_are() -> None:
    table = torch.full((2, 4), 0.5)
    for row_type in RowType:
        spec = TableSpec(name="t", num_embeddings=2, embedding_dim=4, row_type=row_type)
        assert torch.equal(unpack(pack(table, row_type), spec), table), row_type
