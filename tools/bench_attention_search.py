"""Time of DARE's search over a long history, at attention as wide as representation, half as wide, and a quarter.

    python -m tools.bench_attention_search [--dim 64] [--length 1024] [--rows 1,64] [--items 200000] [--rounds 31]

Search: look up the attention embeddings of all events (items, categories, time gaps), score them, keep the best 20.
Request: the whole model from ids to logits, which looks up the representation of every event as well. Both eager, as in
evaluation, and scripted with the tables of an exported bundle. All contestants take turns within every round; medians
are printed in milliseconds, and the ratio to the widest attention. One thread; run it alone on the machine.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.padding import padded
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Read
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.embeddings.full import FullConfig
from recsys.export.serving import ServingEmbeddings
from recsys.models.ctr import SequenceModel
from recsys.models.dare import ATTENTION_SUFFIX, DAREConfig
from tools.stepping import take_turns

CATEGORIES, GAPS = 10_000, 32
COLUMNS = ("item", "category", "hist_item", "hist_category", "hist_gap")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the model and of a request."""

    dim: int  # of representation
    length: int  # events of each history
    rows: int  # targets of a request, each with a history of its own
    items: int


class Search(nn.Module):
    """Ids to the weights and places of the best events, eager; see `TargetAttentionHead.search`."""

    def __init__(self, embeddings: PlannedEmbeddingBagCollection, head: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.head = embeddings, head

    def forward(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor]:
        """Return weights and places."""
        embedded = self.embeddings.embed(sparse)
        sequences = [padded(jagged.values(), jagged.lengths()) for jagged in embedded.sequences.values()]
        lengths = next(iter(embedded.sequences.values())).lengths()
        found: tuple[Tensor, Tensor] = self.head.search(embedded.pooled.values(), sequences, lengths)  # type: ignore[operator]
        return found


class ServedSearch(nn.Module):
    """As `Search`, of an exported model: ids and offsets of `COLUMNS`."""

    def __init__(self, embeddings: ServingEmbeddings, head: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.head = embeddings, head

    def forward(self, ids: list[Tensor], offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return weights and places."""
        pooled, sequences, lengths = self.embeddings(ids, offsets, [torch.empty(0) for _ in ids])
        found: tuple[Tensor, Tensor] = self.head.search(torch.cat(pooled, 1), sequences, lengths[0])  # type: ignore[operator]
        return found


class ServedRequest(ServedSearch):
    """Ids to logits."""

    def forward(self, ids: list[Tensor], offsets: list[Tensor]) -> Tensor:  # type: ignore[override]
        """Return logits (B,)."""
        pooled, sequences, lengths = self.embeddings(ids, offsets, [torch.empty(0) for _ in ids])
        embeddings = torch.cat(pooled, 1)
        logits: Tensor = self.head(embeddings.new_zeros((embeddings.size(0), 0)), embeddings, sequences, lengths)
        return logits


def columns(sizes: Sizes) -> list[FeatureSpec]:
    """An item and its category with their histories, and time gaps."""

    def shared(name: str, num_embeddings: int) -> FeatureSpec:
        history = Read(name=f"hist_{name}", source=f"hist_{name}", max_length=sizes.length)
        return FeatureSpec(name=name, embedding_dim=1, num_embeddings=num_embeddings, max_length=1, also=(history,))

    gaps = FeatureSpec(name="hist_gap", embedding_dim=1, num_embeddings=GAPS, max_length=sizes.length)
    return [shared("item", sizes.items), shared("category", CATEGORIES), gaps]


def request(sizes: Sizes) -> tuple[list[Tensor], list[Tensor]]:
    """Random ids and offsets of `COLUMNS`."""
    generator = torch.Generator().manual_seed(1)
    bounds = (sizes.items, CATEGORIES, sizes.items, CATEGORIES, GAPS)
    counts = [1 if not name.startswith("hist_") else sizes.length for name in COLUMNS]
    ids = [torch.randint(b, (sizes.rows * n,), generator=generator) for b, n in zip(bounds, counts, strict=True)]
    return ids, [torch.arange(sizes.rows + 1) * count for count in counts]


def contestants(sizes: Sizes, attention_dim: int) -> dict[str, Callable[[], object]]:
    """One call of each kind, by its name."""
    torch.manual_seed(0)
    config = DAREConfig(embedding_dim=sizes.dim, attention_dim=attention_dim)
    plan = FullConfig().plan(config.features(columns(sizes)))
    head = config.build(plan.outputs, 0).eval()
    searched = tuple(entry for entry in plan.features if entry.feature.name.endswith(ATTENTION_SUFFIX))
    tables = {name for entry in searched for name in entry.tables}
    part = replace(plan, tables=tuple(table for table in plan.tables if table.name in tables), features=searched)
    ids, offsets = request(sizes)
    sparse = KeyedJaggedTensor(list(COLUMNS), torch.cat(ids), lengths=torch.cat([o.diff() for o in offsets]))
    search, whole = (PlannedEmbeddingBagCollection(p).eval() for p in (part, plan))
    eager, model = Search(search, head), SequenceModel(whole, head)
    served = torch.jit.script(ServedSearch(_served(search, part), head).eval())
    answer = torch.jit.script(ServedRequest(_served(whole, plan), head).eval())
    dense = torch.zeros(sizes.rows, 0)
    return {
        "search, eager": lambda: eager(sparse),
        "search, exported": lambda: served(ids, offsets),
        "request, eager": lambda: model(dense, sparse),
        "request, exported": lambda: answer(ids, offsets),
    }


def _served(embeddings: PlannedEmbeddingBagCollection, plan: TablePlan) -> ServingEmbeddings:
    state = {key.split(".")[-2]: value for key, value in embeddings.state_dict().items() if key.endswith(".weight")}
    weights = {table.name: state[table.name][:, : table.embedding_dim] for table in plan.tables}
    return ServingEmbeddings(parts_of(embeddings, weights), COLUMNS)


@torch.inference_mode()
def medians(sizes: Sizes, rounds: int) -> dict[str, dict[int, float]]:
    """Milliseconds by kind of call and width of attention; the first rounds warm up and do not count."""
    widths = [sizes.dim // share for share in (1, 2, 4)]
    calls = {(kind, width): call for width in widths for kind, call in contestants(sizes, width).items()}
    seconds = take_turns(calls, rounds, warm_up=5)
    kinds = dict.fromkeys(kind for kind, _ in calls)
    return {kind: {width: statistics.median(seconds[kind, width]) * 1e3 for width in widths} for kind in kinds}


def table_of(found: dict[str, dict[int, float]], sizes: Sizes) -> Table:
    """A row a kind of call, a column a width of attention."""
    widths = list(next(iter(found.values())))
    title = f"rows {sizes.rows}, history {sizes.length}, representation {sizes.dim}: ms"
    table = Table("", *(f"attention {width}" for width in widths), title=title)
    for kind, times in found.items():
        table.add_row(kind, *(f"{times[width]:.2f} ({times[width] / times[widths[0]]:.2f})" for width in widths))
    return table


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", default="1,64")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for rows in arguments.rows.split(","):
        sizes = Sizes(dim=arguments.dim, length=arguments.length, rows=int(rows), items=arguments.items)
        Console(width=120).print(table_of(medians(sizes, arguments.rounds), sizes))


if __name__ == "__main__":
    main()
