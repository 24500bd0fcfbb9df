"""What acts while a retrieval model trains: the embedding method's callbacks, on nodes, and initial vectors."""

from pipelines.config import Run
from pipelines.retrieval_model import BuiltNodes, retrieval_of
from recsys.core.callback import Callback
from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.plan import TablePlan
from recsys.embeddings.method import Identity, builds
from recsys.retrieval.encoder import EncoderConfig
from recsys.retrieval.on_nodes import OnNodes
from recsys.retrieval.warm_start import WarmStart


def retrieval_callbacks(run: Run, built: BuiltNodes, interactions: Interactions) -> list[Callback]:
    """Of a run that learns from `interactions`, in their order.

    Raises:
        ConfigError: retrieval.start is set, and the method's tables have no row for each id; or the method follows what
            is looked up, and the model looks up a part.
    """
    of_method, model = run.config.embedding.callbacks(built.plan), retrieval_of(run).model
    if of_method and isinstance(model, EncoderConfig) and model.looks_up_part:
        raise ConfigError(
            f"{model.looks_up_part} looks up a part of the nodes each step, and this embedding method learns from "
            "look-ups of all. Choose lightgcn, or a method without such state (full, unified, quotient_remainder, "
            "int8, pq)."
        )
    found: list[Callback] = [OnNodes(each, built.nodes) for each in of_method]
    start = retrieval_of(run).start
    if start is not None:
        found.insert(0, WarmStart(start, interactions, _tables(built.plan)))
    return found


def _tables(plan: TablePlan) -> dict[str, float]:
    """Names of the tables of users and items, each with the deviation of its initial weights."""
    specs = {table.name: table for table in plan.tables}
    found = {}
    for entry in plan.features:
        table = specs[entry.tables[0]]
        if not builds(entry.remap, Identity) or table.embedding_dim != entry.feature.embedding_dim:
            raise ConfigError(
                f"retrieval.start writes a vector for each id, and this embedding has no such rows for "
                f"{entry.feature.name!r}. Choose embedding=full, a method that compresses after training "
                "(fp16, int8, int4, int2, pq, opq, dedup), or retrieval/start=null."
            )
        found[table.name] = table.init.deviation
    return found
