"""Does an exported file list what the recommender lists here? Measured, and refused where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ParityError
from recsys.core.interactions import Interactions
from recsys.core.schema import Schema
from recsys.core.specs import RowType
from recsys.export.config import ExportConfig
from recsys.export.retrieval_manifest import RetrievalParity
from recsys.ops.top_k import hide, top_k
from recsys.retrieval.recommender import Recommender

PLACES, USERS_AT_ONCE = 20, 256
MAX_SCORE_ERROR = 1e-5
"""Of the largest score: products are summed in another order."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is exported, with the keys that ids stand for."""

    recommender: Recommender
    plan_bytes: int
    schema: Schema  # user, then the items of a history
    keys: dict[str, Tensor]  # raw key of each id by column, int64; that of id 0 is `MISSING_KEY`
    met: Interactions

    @property
    def columns(self) -> tuple[str, str]:
        """Names of users and items."""
        user, item = (column.name for column in self.schema.categorical)
        return user, item


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference:
    """What a recommender lists for some requests: known users, then as many new ones with the histories of these.

    `scores`, float32 (L, PLACES), and `listed`, raw item keys, int64 (L, PLACES), best first.
    """

    served: Served
    features: dict[str, Tensor]
    listed: Tensor
    scores: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, served: Served, features: dict[str, Tensor]) -> "Reference":
        """Ask the recommender; `features` as the exported file takes them."""
        lists = [top_k(scores, PLACES) for scores in _all_scores(served, features)]
        best, scores = (torch.cat(part) for part in zip(*lists, strict=True))
        listed = served.keys[served.columns[1]][best]
        return cls(served=served, features=features, listed=listed, scores=scores)

    @torch.no_grad()
    def compared(self, items: Tensor, scores: Tensor) -> RetrievalParity:
        """Compare lists of a file, raw item keys and scores, (L, PLACES) each."""
        ids = _ids_of(self.served.keys[self.served.columns[1]], items).split(USERS_AT_ONCE)
        every = _all_scores(self.served, self.features)
        own = torch.cat([some.gather(1, part) for some, part in zip(every, ids, strict=True)])
        last = self.scores[:, -1:]
        slack = MAX_SCORE_ERROR * last.abs().masked_fill(~last.isfinite(), 0.0).clamp(min=1e-6)
        return RetrievalParity(
            num_lists=len(items),
            places=PLACES,
            max_score_error=_error(scores, own),
            different_places=int((items != self.listed).sum()),
            kept=float((own >= last - slack).double().mean()),
        )


def _all_scores(served: Served, features: dict[str, Tensor]) -> Iterator[Tensor]:
    """Scores of all items, -inf of those met, float32 (up to USERS_AT_ONCE, M), request by request."""
    num_users = features[served.columns[0]].numel() // 2
    known = torch.arange(1, num_users + 1)
    users = torch.cat([known, torch.zeros_like(known)])
    for ids, histories in zip(users.split(USERS_AT_ONCE), known.repeat(2).split(USERS_AT_ONCE), strict=True):
        items, offsets = served.met.of_users(histories)
        yield hide(served.recommender(ids, items, offsets), items, offsets)


def require(name: str, parity: RetrievalParity, row_type: RowType, config: ExportConfig) -> None:
    """Refuse a file that lists something else.

    Raises:
        ParityError: scores of a float32 file differ, or items of any file are too often not among the best.
    """
    if row_type is RowType.FLOAT32 and not parity.max_score_error <= MAX_SCORE_ERROR:
        raise ParityError(
            f"{name}: its scores differ by {parity.max_score_error:.3g} of the largest from the recommender's of the "
            f"same items, above {MAX_SCORE_ERROR:g}. Do not serve it."
        )
    listed = f"{name}: only {parity.kept:.4f} of its items are among the recommender's {parity.places} best"
    if row_type is RowType.FLOAT32 and parity.kept < 1:
        raise ParityError(f"{listed}. Do not serve it.")
    if parity.kept < config.min_kept:
        raise ParityError(
            f"{listed}, below export.min_kept={config.min_kept}. Take {row_type.name} out of export.row_types, or "
            "lower min_kept knowingly."
        )


def _ids_of(keys: Tensor, listed: Tensor) -> Tensor:
    """The ids that some raw keys stand for, shape of `listed`; `keys` has that of each id, distinct."""
    ordered, ids = keys.sort()
    return ids[torch.searchsorted(ordered, listed).clamp(max=len(ids) - 1)]


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest difference by the largest finite score, or by 1; NaN where one of them is NaN."""
    largest = expected.masked_fill(~expected.isfinite(), 0.0).abs().max().clamp(min=1.0)
    same = found == expected  # two empty places too, whose -inf have no difference
    return float((found - expected).abs().masked_fill(same, 0.0).max() / largest)
