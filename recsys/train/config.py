"""Configuration of training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from recsys.core.errors import ConfigError


def _require(config: object, names: list[str], fits: Callable[[float], bool], must: str) -> None:
    """Refuse fields of `config` that are not finite or do not fit."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and fits(value)):
            raise ConfigError(f"{name}={value}: must be {must}.")


class DenseOptimizer(Enum):
    """Optimizer of everything that is not a table."""

    ADAM = "adam"
    ADAMW = "adamw"


class TableOptimizer(Enum):
    """Optimizer of the tables, fused into FBGEMM's backward pass, except for Adam on a CPU or with a regularizer."""

    # One sum of squares a row, averaged over the table's exact width; with sharding=column_wise over a shard's columns.
    ROWWISE_ADAGRAD = "rowwise_adagrad"
    ADAGRAD = "adagrad"
    SGD = "sgd"
    # Not fused, it goes through TorchRec's dense kernel: gradients of whole tables, replicated on every rank.
    ADAM = "adam"


class Sharding(Enum):
    """How TorchRec lays tables over ranks."""

    AUTO = "auto"  # TorchRec's planner chooses
    TABLE_WISE = "table_wise"
    ROW_WISE = "row_wise"
    COLUMN_WISE = "column_wise"
    DATA_PARALLEL = "data_parallel"


class TableMemory(Enum):
    """Where fused tables live on a GPU."""

    DEVICE = "device"
    UVM_CACHING = "uvm_caching"  # host memory behind a device cache


class Precision(Enum):
    """Arithmetic of the dense part; tables and the loss stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"  # autocast


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """BARS protocol: each epoch whose validation AUC does not improve multiplies every learning rate by `factor`."""

    factor: float = 0.1
    min_learning_rate: float = 1e-6
    stop_after: int = 2  # epochs in a row without improvement

    def __post_init__(self) -> None:
        _require(self, ["factor"], lambda value: 0 < value <= 1, "above 0 and at most 1")
        _require(self, ["min_learning_rate"], lambda value: value >= 0, "0 or more, and finite")
        _require(self, ["stop_after"], lambda value: value >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizers and what acts on gradients."""

    dense: DenseOptimizer = DenseOptimizer.ADAM
    dense_learning_rate: float = 1e-3
    dense_weight_decay: float = 0.0
    table: TableOptimizer = TableOptimizer.ROWWISE_ADAGRAD
    table_learning_rate: float = 0.02
    # (lambda / 2) * sum of squares of whole tables, added to the mean loss of every step, as FuxiCTR does, and of the
    # weights of combiners (networks, projections, codebooks), so that no method escapes it. It touches every row each
    # step, so it needs the dense kernel (table: adam).
    table_regularizer: float = 0.0
    clip_norm: float = 10.0  # of all gradients that are not fused; 0 turns it off

    def __post_init__(self) -> None:
        _require(self, ["dense_learning_rate", "table_learning_rate"], lambda value: value > 0, "above 0, and finite")
        not_negative = ["dense_weight_decay", "table_regularizer", "clip_norm"]
        _require(self, not_negative, lambda value: value >= 0, "0 or more, and finite")
        if self.table_regularizer and self.table is not TableOptimizer.ADAM:
            raise ConfigError(
                f"table_regularizer={self.table_regularizer} needs gradients of whole tables, and "
                f"table={self.table.value} is fused, which sees only the rows of a batch. "
                "Set table: adam, or table_regularizer: 0."
            )


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where and how tables are laid out."""

    device: str = "cpu"  # cpu or cuda
    num_processes: int = 1  # ranks that this command starts itself; torchrun overrides it
    sharding: Sharding = Sharding.AUTO
    table_memory: TableMemory = TableMemory.DEVICE
    cache_load_factor: float = 0.2  # share of rows kept on the device with uvm_caching
    precision: Precision = Precision.FLOAT32
    num_threads: int = 0  # of each process; 0 keeps torch's choice

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device={self.device!r}: must be 'cpu' or 'cuda'.")
        _require(self, ["num_processes"], lambda value: value >= 1, "1 or more")
        _require(self, ["cache_load_factor"], lambda value: 0 < value <= 1, "above 0 and at most 1")
        _require(self, ["num_threads"], lambda value: value >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    epochs: int = 3
    batch_size: int = 4096  # rows of a global batch, over all ranks
    eval_batch_size: int = 16384
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    plateau: Plateau | None = None
    shuffle_rows: int = 4_000_000  # rows of the shuffle buffer
    checkpoint_every: int = 0  # steps between checkpoints; 0: at the end of each epoch only
    run_on: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        at_least_one = ["epochs", "batch_size", "eval_batch_size", "shuffle_rows"]
        _require(self, at_least_one, lambda value: value >= 1, "1 or more")
        _require(self, ["checkpoint_every"], lambda value: value >= 0, "0 or more")
