"""`MODEL_CARD.md` of a retrieval bundle, with code that runs as it stands."""

import json

from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import KeyType
from recsys.core.specs import RowType
from recsys.export.card import KEY_HELPER, example_value, origin
from recsys.export.index_config import IndexReport
from recsys.export.retrieval_manifest import ListModel, RetrievalManifest, RetrievalQuality

_INTRO = """\
# Recommender

Lists items for a user (`{user}`), whom training knows or whose history (`{item}`) is given. TorchScript with ATen
operators only: any libtorch, `torch.jit.load` in Python, or Triton's PyTorch backend serves it. Vocabularies and what
each known user has met are inside. {recommender}, {users:,} users, {items:,} items.

## Files

{models}`items.parquet` has id, raw key and training count of every item{vectors}.
{made_of}`golden.pt` holds inputs with the expected lists. `manifest.json` has schema, versions and lineage.

"""
_EXACT = """\
`{file}` ({bytes:,} bytes, of which what scores are made of takes {vectors:,}) lists exactly.
"""
_NARROW = """\
`{file}` ({bytes:,} bytes, {vectors:,} of them for scores) keeps vectors in fewer bytes: of the exact lists it has
{kept:.2%} of the places, or items that score as high.
"""
_MADE_OF = """\
The embeddings that vectors were made of take {bytes:,} bytes as their method stores them; the files hold vectors.
"""
_RUNNING = """\
## Listing in Python

Needs `torch`{xxhash}, nothing else.

```python
{code}
```

Returns raw item keys, int64 (B, K), and scores, float32 (B, K), best first; score -inf and key -9223372036854775808
where there is nothing to list. A user that training never met is known by the history alone; without one, items come
by frequency. A known user of a `DotRecommender` has a learned vector: a history that is given with him is left out of
his list and changes nothing else. Give a key that training lacks to rank by a history alone.

"""
_SEARCH = """\
## Searching `items.faiss`

{kind} by inner product, {settings}, {bytes:,} bytes for {items:,} items of {dim} columns. Labels are `id` of
`items.parquet`. It finds {recall:.2%} of the {places} best items, {reranked:.2%} among five times as many results
({queries:,} queries); one query takes {index:.3f} ms (99 of 100 at most {p99:.3f}), where a product with all vectors
takes {exact:.3f}, each on one thread. Nothing is filtered: ask for more than you show, and leave out what the user has
met.

```python
{code}
```

"""
_QUALITY = """\
## Quality

Of the exact lists, every item ranked but those that a user has met, means over the {users:,} users of the {split} split
({pairs:,} pairs). The epoch was selected on {selected}. Narrower files keep what their line above says.

| metric | mean | 95 % interval |
|---|---|---|
"""
_CODE = """\
{helper}model = torch.jit.load("{file}")
features = {{  # two users, the second with two items of history
{features}
}}
items, scores = model(features, 10)
print(items.tolist())"""
_SEARCH_CODE = """\
import faiss

index = faiss.read_index("{file}")
scores, ids = index.search(model.query(features).numpy(), 100)  # model and features as above"""


def retrieval_card(manifest: RetrievalManifest) -> str:
    """The text of `MODEL_CARD.md`."""
    report, dots = manifest.index, manifest.recommender == "DotRecommender"
    parts = [
        _INTRO.format(
            user=manifest.user.name,
            item=manifest.item.name,
            recommender=manifest.recommender,
            users=manifest.num_users,
            items=manifest.num_items,
            models="".join(_model(model) for model in manifest.models.values()),
            vectors=", and its vector" if dots else "",
            made_of=_MADE_OF.format(bytes=manifest.plan_bytes) if manifest.plan_bytes else "",
        ),
        _inputs(manifest),
        _RUNNING.format(code=example_code(manifest), xxhash=" and `xxhash`" if _has_text(manifest) else ""),
        "" if report is None else _search(report),
        _quality(manifest.quality),
        _parity(manifest),
        origin(manifest.lineage, manifest.versions),
    ]
    return "".join(parts)


def example_code(manifest: RetrievalManifest) -> str:
    """A Python program that lists items for two made-up users, next to the model."""
    lines = []
    for tensor in manifest.inputs:
        feature = manifest.user if tensor.name == manifest.user.name else manifest.item
        if tensor.name.endswith(LENGTHS_SUFFIX):
            value, why = "torch.tensor([0, 2])", "none of the first user, two of the second"
        else:
            value, why = example_value(tensor, feature.key_type is KeyType.STRING)
        lines.append(f"    {json.dumps(tensor.name, ensure_ascii=False)}: {value},{why and f'  # {why}'}")
    helper = KEY_HELPER if _has_text(manifest) else "import torch\n\n"
    return _CODE.format(helper=helper, file=_exact(manifest).file, features="\n".join(lines))


def _exact(manifest: RetrievalManifest) -> ListModel:
    return manifest.models[RowType.FLOAT32.value]


def _model(model: ListModel) -> str:
    form = _EXACT if model.parity.kept == 1 else _NARROW
    return form.format(file=model.file, bytes=model.file_bytes, vectors=model.vector_bytes, kept=model.parity.kept)


def _has_text(manifest: RetrievalManifest) -> bool:
    return KeyType.STRING in (manifest.user.key_type, manifest.item.key_type)


def _inputs(manifest: RetrievalManifest) -> str:
    lines = [
        "## Inputs\n\nOne dictionary of tensors of one dimension; B users, N items of all their histories. "
        f"`{manifest.item.name}` and its lengths may be left out. Further arguments: the number of places, and whether "
        "to leave out what a user has met (true).\n\n| input | type | shape | meaning |\n|---|---|---|---|\n"
    ]
    lines.extend(f"| `{t.name}` | {t.dtype.value} | ({t.shape},) | {t.meaning} |\n" for t in manifest.inputs)
    return "".join([*lines, "\n"])


def _search(report: IndexReport) -> str:
    return _SEARCH.format(
        kind=report.kind.value,
        settings=", ".join(f"{name} {value}" for name, value in report.settings.items()) or "no settings",
        bytes=report.file_bytes,
        items=report.num_items,
        dim=report.dim,
        recall=report.recall,
        places=report.places,
        reranked=report.recall_reranked,
        queries=report.num_queries,
        index=report.index_ms,
        p99=report.index_p99_ms,
        exact=report.exact_ms,
        code=_SEARCH_CODE.format(file=report.file),
    )


def _quality(quality: RetrievalQuality | None) -> str:
    if quality is None:
        return "## Quality\n\nNot measured: this was exported before the run was evaluated.\n\n"
    found = quality.metrics
    lines = [
        f"| {_metric(name)} | {value:.4f} | {_interval(found.get(f'{name}.low'), found.get(f'{name}.high'))} |\n"
        for name, value in found.items()
        if "." not in name
    ]
    about = _QUALITY.format(
        split=quality.split, users=quality.num_users, pairs=quality.num_pairs, selected=quality.selected_on
    )
    return "".join([about, *lines, "\n"])


def _metric(name: str) -> str:
    kind, _, k = name.partition("_at_")
    return f"{kind.upper() if kind in ('ndcg', 'map') else kind.capitalize()}@{k}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _parity(manifest: RetrievalManifest) -> str:
    parity = _exact(manifest).parity
    return (
        f"## Parity\n\nOver {parity.num_lists:,} lists of {parity.places} items: scores differ from the trained "
        f"model's by {parity.max_score_error:.2e} of the largest at most, {parity.different_places} places hold "
        "another item (one that scores alike). A process that has torch alone lists the same.\n\n"
    )
