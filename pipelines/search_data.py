"""The data that a search sees: training rows or pairs alone, some held out; and short trainings cut out of them."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.config import Run
from pipelines.stage import StageKey, fingerprint, stage
from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import DataError
from recsys.core.interactions import Interactions
from recsys.data import interactions as pairs
from recsys.data.fingerprint import fingerprint_of
from recsys.data.holdout import hold_out
from recsys.ops.hashing import salt_for

IN_ORDER = "ORDER"
"""The rule of splitting that takes rows by position: then the last training rows are held out, as those to come are."""


def held_data(run: Run) -> Path:
    """Folder of the data set whose validation split is held out of the run's training rows; written if it is not there.

    Vocabularies are the run's, made of all training rows: ids that only held-out rows have keep rows that nothing
    trains, so such rows count a little less here than they will.

    Raises:
        DataError: too few rows, or held-out rows of one label.
    """
    search = run.config.search
    assert search is not None
    source = run.stage("ingest")
    method = str(_split_rule(run.values["dataset"])).upper()
    in_order, seed = method == IN_ORDER, run.config.ingest.seed
    config = {"share": search.holdout, "in_order": in_order, "seed": seed}
    key = StageKey(stage="hold out", config=config, inputs={"ingest": fingerprint(source)}, shared=True)
    folder = source.with_name(f"{source.name}-held-{fingerprint_of([json.dumps(config, sort_keys=True)])[:8]}")
    with stage(folder, key, overwrite=True) as aside:
        if aside is not None and (not dist.is_initialized() or dist.get_rank() == 0):
            written = hold_out(source, aside, search.holdout, in_order=in_order, seed=seed)
            held = written.splits["validation"]
            if written.label is None and held.num_positive in (0, held.num_rows):
                raise DataError(
                    f"the {held.num_rows} rows held out of {source} for the search are all of one label, so they have "
                    "no AUC. Raise search.holdout."
                )
    return folder


def _split_rule(dataset: Mapping[str, Any]) -> Any:
    """The split method of a dataset's configuration; given by files where it has none."""
    split = dataset.get("split")
    return split["method"] if isinstance(split, Mapping) else "GIVEN"


def held_pairs(known: Interactions, share: float, seed: int) -> tuple[Interactions, Interactions]:
    """Training pairs without a share of each user's, which is held out; every user and every item keeps one.

    Raises:
        DataError: users have too few pairs for any to be held out.
    """
    held = pairs.hold_out(known.users.cpu(), known.items.cpu(), share=share, salt=salt_for("hold out", 0, seed))
    if not bool(held.any()):
        raise DataError(
            f"search.holdout={share} of each user's training pairs holds out none of {known.num_pairs}. Raise it."
        )
    return known.only(~held), known.only(held)


class Rungs:
    """Batches in pieces of `steps`, one after the other: each looks like an epoch to a trainer."""

    def __init__(self, source: BatchSource, steps: int) -> None:
        """Cut the batches of `source`, epoch after epoch, a short last one left out."""
        self._source, self._steps = source, steps
        rows = [source.rows_of(batch) for batch in range(source.num_batches)]
        self._whole = sum(count == rows[0] for count in rows)

    @property
    def num_batches(self) -> int:
        """Steps of a piece."""
        return self._steps

    @property
    def num_rows(self) -> int:
        """Rows of a piece, over all ranks."""
        return self._steps * self._source.rows_of(0)

    def rows_of(self, batch: int) -> int:
        """Rows of a batch, over all ranks: those of all are equal."""
        return self._source.rows_of(0)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of a piece."""
        done, stop = epoch * self._steps + start_batch, (epoch + 1) * self._steps
        while done < stop:
            number, place = divmod(done, self._whole)
            taken = min(stop - done, self._whole - place)
            yield from islice(self._source.epoch(number, place), taken)
            done += taken
