"""What a model file takes beside its weights, as `ModelFile` states it."""

import io
import zipfile

from recsys.core.plan import TablePlan

EMBEDDINGS_ONLY = 24
"""KiB of the 48 that a model without head and encoder may take."""


def stated_constant(model: bytes, plan: TablePlan, *, base_kib: int = 48) -> int:
    """Bytes that a TorchScript file may have beyond plan, head and encoder."""
    with zipfile.ZipFile(io.BytesIO(model)) as file:
        num_tensors = sum("/data/" in name for name in file.namelist())
    return 1024 * base_kib + 512 * (len(plan.tables) + len(plan.features) + num_tensors)
