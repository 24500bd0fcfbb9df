"""Initial rows of tables, as a function of the seed, the table's name and the row alone."""

import hashlib

import torch
from torch import Tensor

from recsys.core.specs import TableSpec

BLOCK_ROWS = 65_536
"""Rows that share one random stream: enough to be fast, few enough that a rank draws little beyond its shard."""


def initial_block(table: TableSpec, block: int, seed: int) -> Tensor:
    """Initial rows [block * BLOCK_ROWS, …) of a table, float32, padded with zeros to its storage width."""
    digest = hashlib.sha256(f"{seed}/{table.name}/{block}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    rows = min(BLOCK_ROWS, table.num_embeddings - block * BLOCK_ROWS)
    values = torch.zeros(rows, table.storage_dim)
    values[:, : table.embedding_dim] = table.init.fill_(torch.empty(rows, table.embedding_dim), generator)
    return values
