"""Initial weights from vectors of the nodes instead of from chance."""

from collections.abc import Mapping
from typing import Any

import torch

from recsys.core.callback import Callback, TrainingSession
from recsys.core.interactions import Interactions
from recsys.retrieval.fast_rp import FastRPConfig


class WarmStart(Callback):
    """Writes FastRP's vectors into tables with a row for each id, once, before the first step."""

    def __init__(self, config: FastRPConfig, interactions: Interactions, tables: Mapping[str, float]) -> None:
        """Prepare.

        Args:
            config: of the vectors, as wide as the tables.
            interactions: that training learns from.
            tables: names of the users' and the items' table, each with the standard deviation that all vectors
                together are scaled to: what the tables would have been drawn with.
        """
        assert len(tables) == 2
        self._config, self._interactions, self._tables, self._done = config, interactions, dict(tables), False

    def on_train_start(self, session: TrainingSession) -> None:
        """Write, unless a checkpoint says that it is done; the unknown user and item keep what they have."""
        if self._done:
            return
        vectors, _ = self._config.vectors(self._interactions)
        known = self._interactions
        for (table, deviation), part in zip(
            self._tables.items(), vectors.split([known.num_users, known.num_items]), strict=True
        ):
            rows = torch.arange(1, len(part), device=session.device)
            session.write_rows(table, rows, part[1:].to(session.device) * (deviation / vectors.std()))
        self._done = True

    def state_dict(self) -> dict[str, Any]:
        """That it is done."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._done = bool(state["done"])
