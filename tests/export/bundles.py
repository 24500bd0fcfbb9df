"""Golden rows, metrics and configuration for bundles of the small world."""

import torch
from torch import Tensor

from recsys.export.bundle import Golden
from recsys.export.config import ExportConfig
from recsys.export.parity import Metrics
from tests.export.world import make_features, make_trained, reference_logits

LOOSE = ExportConfig(max_auc_delta=1.0, max_log_loss_delta=1.0, num_golden_rows=5)
NUM_ROWS = 40


def auc(labels: Tensor, logits: Tensor) -> float | None:
    """Share of (positive, negative) pairs in order."""
    positive, negative = logits[labels == 1], logits[labels == 0]
    if positive.numel() == 0 or negative.numel() == 0:
        return None
    return (positive.unsqueeze(1) > negative.unsqueeze(0)).double().mean().item()


def log_loss(labels: Tensor, logits: Tensor) -> float | None:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item()


METRICS = Metrics(auc=auc, log_loss=log_loss, auc_error=lambda *_: None, rmse=lambda *_: None)


def make_golden(method: str) -> Golden:
    features = make_features(
        [100 + i % 9 for i in range(NUM_ROWS)], [[100 + (i + j) % 8 for j in range(i % 4)] for i in range(NUM_ROWS)]
    )
    logits = reference_logits(make_trained(method), features)
    return Golden(
        features=features, logits=logits, trained_logits=logits, labels=(torch.arange(NUM_ROWS) % 3 == 0).float()
    )
