"""Rows of merged blocks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.embeddings.reference.codes import code_at


def DedupRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    block, place = divmod(key, params["block_rows"])
    return [code_at(state["blocks"], block, params["num_kept"]) * params["block_rows"] + place]
