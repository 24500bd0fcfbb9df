"""Configuration of the export stage."""

from dataclasses import dataclass, field

from recsys.core.errors import ConfigError
from recsys.core.specs import RowType
from recsys.export.index_config import IndexConfig


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export and how far it may deviate from the trained model before the export fails."""

    row_types: list[RowType] = field(default_factory=lambda: [RowType.FLOAT32, RowType.INT8])
    max_logit_error: float = 1e-4
    """Float32 model: largest |logit - trained logit| / max(1, |trained logit|) of any golden row; of outputs, where
    labels are numbers."""
    max_auc_delta: float = 5e-4
    """Narrower models: largest |AUC - AUC of the trained model| on the golden rows; more, where these rows are so few
    that chance alone makes more: 1.96 standard errors of that very difference (DeLong)."""
    max_log_loss_delta: float = 1e-3
    """Narrower models: largest |log loss - log loss of the trained model|, in nats."""
    max_rmse_change: float = 1e-3
    """Narrower models of number labels: largest |RMSE / RMSE of the trained model - 1|."""
    min_kept: float = 0.95
    """Narrower models of lists: share of the trained model's lists that they list."""
    num_parity_rows: int = 20_000
    """Rows of the evaluation split to compare on."""
    num_golden_rows: int = 1_000
    """The first of them that are stored in the bundle with their scores."""
    calibrated: bool = True
    """Put the map that evaluation fitted (`evaluate.calibration`) into the model's probabilities; logits stay raw."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """Of item vectors, where a retrieval model's scores are dot products."""

    def __post_init__(self) -> None:
        if RowType.FLOAT32 not in self.row_types or len(set(self.row_types)) != len(self.row_types):
            names = [row_type.name for row_type in self.row_types]
            raise ConfigError(
                f"export.row_types={names}: FLOAT32 must be among them, because model.pt and its parity are the "
                "reference for the others, and none may repeat. Use [FLOAT32] or [FLOAT32, INT8]."
            )
        for name in ("max_logit_error", "max_auc_delta", "max_log_loss_delta", "max_rmse_change"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"export.{name}={getattr(self, name)}: must be 0 or more. The default is a good start."
                )
        if not 0 <= self.min_kept <= 1:
            raise ConfigError(f"export.min_kept={self.min_kept}: must be a share in [0, 1].")
        if not 1 <= self.num_golden_rows <= self.num_parity_rows:
            raise ConfigError(
                f"export.num_golden_rows={self.num_golden_rows}: must lie in [1, "
                f"num_parity_rows={self.num_parity_rows}], because golden rows are the first rows of the comparison."
            )
