"""All embeddings of a plan at once, where they are the rows of dense tables as they are: nothing to look up or copy."""

import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbeddingBag

from recsys.core.plan import FeaturePlan, TablePlan
from recsys.embeddings.combiners import Only
from recsys.embeddings.method import Identity, builds


def are_rows(plan: TablePlan) -> bool:
    """True if the embedding of id i of the f-th feature is row i of the f-th table, of one width, and no more."""
    return len(plan.tables) == len(plan.features) and all(
        _is_row(entry, plan, number) for number, entry in enumerate(plan.features)
    )


def _is_row(entry: FeaturePlan, plan: TablePlan, number: int) -> bool:
    table = plan.tables[number]
    return (
        entry.tables == (table.name,)
        and builds(entry.remap, Identity)
        and builds(entry.combiner, Only)
        and entry.feature.num_embeddings == table.num_embeddings
        and table.embedding_dim == table.storage_dim == plan.tables[0].storage_dim
    )


def whole_tables(plan: TablePlan, sharded: nn.Module | None) -> Tensor | None:
    """The tables one under another, (rows of all, width), sharing memory and gradient with them.

    Only one process may go round TorchRec's look-up, which would add up gradients of ranks; and only its dense kernel
    keeps all tables in one tensor that has a gradient.

    Args:
        plan: of which `are_rows` is true.
        sharded: TorchRec's collection of its tables.

    Returns:
        None where they are not kept like that.
    """
    if not dist.is_initialized() or dist.get_world_size() > 1:
        return None
    # TorchRec keeps look-ups outside its module tree.
    parts = [part for lookup in getattr(sharded, "_lookups", ()) for part in lookup.modules()]
    kernels = [part for part in parts if isinstance(part, BatchedDenseEmbeddingBag)]
    names = [[table.name for table in kernel.config.embedding_tables] for kernel in kernels]
    if names != [[table.name for table in plan.tables]]:
        return None
    weights: Tensor = kernels[0].emb_module.weights
    return weights.view(-1, plan.tables[0].storage_dim)
