"""Callbacks of embedding methods, told what a retrieval step looks up: all nodes, whatever the batch's triples are."""

from typing import Any

import torch

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.retrieval.node_model import NodeIds


class OnNodes(Callback):
    """Hands every hook on, with the look-ups of the nodes in place of a batch."""

    def __init__(self, callback: Callback, nodes: NodeIds) -> None:
        self._callback = callback
        rows = nodes.jagged.stride()
        labels = torch.ones(rows, device=nodes.jagged.device())
        self._batch = Batch(dense=labels.new_empty(rows, 0), sparse=nodes.jagged, labels=labels)

    def on_train_start(self, session: TrainingSession) -> None:
        """Hand on."""
        self._callback.on_train_start(session)

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Hand on, with this rank's share of all nodes."""
        self._callback.on_step_start(session, step, self._batch)

    def penalty(self, session: TrainingSession, rows: int) -> torch.Tensor | None:
        """Hand on; the mean is over the rows that are looked up, not over those of the batch."""
        return self._callback.penalty(session, self._batch.labels.numel() * session.world_size)

    def on_step_end(self, session: TrainingSession, step: int, loss: torch.Tensor) -> None:
        """Hand on."""
        self._callback.on_step_end(session, step, loss)

    def on_epoch_end(self, session: TrainingSession, record: dict[str, float]) -> None:
        """Hand on."""
        self._callback.on_epoch_end(session, record)

    def state_dict(self) -> dict[str, Any]:
        """Of the callback."""
        return self._callback.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of the callback."""
        self._callback.load_state_dict(state)
