"""Between a collection and its parts: what a method freezes, and the collection that computes what was frozen."""

from pathlib import Path

import torch
from torch import Tensor

from recsys.core.modules import Combiner, Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.row_storage import unpack_tables
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, parts_in


def parts_of(collection: PlannedEmbeddingBagCollection, tables: dict[str, Tensor]) -> EmbeddingParts:
    """The collection's plan, remaps and combiners with the values of its tables at their exact widths."""
    parts = parts_in(collection)
    return EmbeddingParts(
        plan=collection.plan,
        tables=tables,
        remaps={name: remap for name, (remap, _) in parts.items()},
        combiners={name: combiner for name, (_, combiner) in parts.items()},
    )


def build_frozen(parts: EmbeddingParts) -> PlannedEmbeddingBagCollection:
    """An unsharded collection that computes what frozen parts mean, in float32, in evaluation mode.

    Its tables are unpacked, so it needs the memory of float32 rows.
    """
    collection = PlannedEmbeddingBagCollection(parts.plan)
    tables = unpack_tables(parts.tables, parts.plan.tables)
    with torch.no_grad():
        for name, weight in collection.named_parameters():
            table = tables.get(name.split(".")[-2])
            if table is not None and name.split(".")[-3] in ("embedding_bags", "embeddings"):
                weight.zero_()[:, : table.shape[1]] = table
    for name, (remap, combiner) in parts_in(collection).items():
        remap.load_state_dict(parts.remaps[name].state_dict())
        combiner.load_state_dict(parts.combiners[name].state_dict())
    return collection.eval()


def save_parts(parts: EmbeddingParts, path: Path) -> None:
    """Write the values of parts; their plan is kept by the caller."""
    modules = {"remaps": parts.remaps, "combiners": parts.combiners}
    states = {kind: {name: module.state_dict() for name, module in of.items()} for kind, of in modules.items()}
    torch.save({"tables": dict(parts.tables), **states}, path)


def load_parts(plan: TablePlan, path: Path) -> EmbeddingParts:
    """Read what `save_parts` wrote for this plan."""
    stored = torch.load(path, weights_only=True)
    remaps: dict[str, Remap] = {}
    combiners: dict[str, Combiner] = {}
    for entry in plan.features:
        name, remap, combiner = entry.feature.name, entry.remap.build(), entry.combiner.build()
        assert isinstance(remap, Remap) and isinstance(combiner, Combiner)
        remap.load_state_dict(stored["remaps"][name])
        combiner.load_state_dict(stored["combiners"][name])
        remaps[name], combiners[name] = remap, combiner
    return EmbeddingParts(plan=plan, tables=stored["tables"], remaps=remaps, combiners=combiners)
