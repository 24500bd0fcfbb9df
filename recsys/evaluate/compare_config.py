"""What to compare, and what counts as a difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from recsys.core.errors import ConfigError
from recsys.metrics import GroupWeight


class Metric(Enum):
    """What is tested between runs."""

    AUC = "auc"
    GAUC = "gauc"
    AVERAGE_PRECISION = "average_precision"
    LOG_LOSS = "log_loss"
    NORMALIZED_ENTROPY = "normalized_entropy"
    CALIBRATION = "calibration_gap"  # |mean prediction / mean label - 1|
    RMSE = "rmse"  # of number labels, as the next one
    MAE = "mae"

    @property
    def higher_is_better(self) -> bool:
        """Direction: of the ranking metrics up, of the others down."""
        return self in (Metric.AUC, Metric.GAUC, Metric.AVERAGE_PRECISION)


NUMBER_METRICS = (Metric.RMSE, Metric.MAE)
"""Those of number labels, overall and by slice."""

CLICK_METRICS = tuple(metric for metric in Metric if metric not in NUMBER_METRICS)

SLICE_METRICS = (Metric.AUC, Metric.LOG_LOSS, Metric.CALIBRATION)
"""One of each kind: ranking, likelihood, calibration. More would test the same thing twice."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of one comparison."""

    runs: list[str] = field(default_factory=list)
    """Names of evaluated runs, folders below `runs/`. The first is the baseline, the others are candidates."""
    label: str = ""
    """Which of the labels that the runs learned is compared; empty: the main one of each."""
    metric: Metric = Metric.AUC
    """What the verdict is about; the other metrics are told beside it. Of number labels AUC stands for RMSE."""
    margin: Mapping[str, float] = field(
        default_factory=lambda: {
            "auc": 0.001,
            "gauc": 0.001,
            "average_precision": 0.0,
            "log_loss": 0.001,
            "normalized_entropy": 0.001,
            "calibration_gap": 0.0,
            "rmse": 0.0,
            "mae": 0.0,
        }
    )
    """Smallest difference that matters, by metric; what is absent or 0: any difference matters."""
    group_key: str | None = None
    """Column whose rows depend on each other, such as a user id; None: `evaluate.group_key` of the runs; empty: rows
    are independent."""
    slices: list[str] | None = None
    """What to break the differences down by, as reports name it: columns, "frequency of <feature>", "day of <column>";
    None: as the baseline was evaluated."""
    gauc_weight: GroupWeight | None = None
    """What a group counts in GAUC; None: `evaluate.gauc_weight` of the runs."""
    group_seeds: bool = False
    """Runs that differ in `_seed<number>` of their names alone are one method, whose spread counts as error."""
    across_ingests: bool = False
    """Take runs of differently encoded data, as long as raw files, rows and labels are the same."""
    level: float = 0.95
    """Of intervals; tests are made at 1 - level."""
    num_replicates: int = 500
    """Of the bootstrap: 500 give its standard errors to 3%."""
    seed: int = 1
    """Of the bootstrap."""
    max_bootstrap_rows: int = 1_000_000
    """With more rows only AUC is tested: a replicate takes about 0.5 us a row, run and metric."""
    measure_latency: bool = False
    """Time requests to the exported models, one after the other. Nothing else should run meanwhile."""

    def __post_init__(self) -> None:
        repeated = sorted({name for name in self.runs if self.runs.count(name) > 1})
        if repeated:
            raise ConfigError(f"runs={self.runs}: {repeated} stand there twice. Name each run once.")
        columns = self.slices or []
        if len(set(columns)) < len(columns):
            raise ConfigError(f"slices={columns}: a column stands there twice. Name each once.")
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level={self.level}: must be in [0.5, 1), such as 0.95.")
        for name, least in (("num_replicates", 20), ("max_bootstrap_rows", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: must be {least} or more.")
        self._check_margin()

    def _check_margin(self) -> None:
        known = [metric.value for metric in Metric]
        for name, margin in self.margin.items():
            if name not in known:
                raise ConfigError(f"margin.{name}={margin}: no such metric. There are {known}.")
            if not 0 <= margin < float("inf"):
                raise ConfigError(f"margin.{name}={margin}: must be 0 or more, and finite.")

    def margin_of(self, metric: Metric) -> float:
        """Smallest difference of this metric that matters; 0 where any does."""
        return self.margin.get(metric.value, 0.0)
