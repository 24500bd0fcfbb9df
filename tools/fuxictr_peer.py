"""The peer's side of the benchmark: FuxiCTR preprocesses, trains and tests DCNv2 on one given split.

This file runs in FuxiCTR's own virtual environment (`tools/bench_fuxictr.py` makes it) and imports nothing of ours.
FuxiCTR's wheel carries layers, training loop, loaders and preprocessing, but not its model zoo: the DCNv2 below
joins FuxiCTR's own layers as the paper and the zoo's default (`parallel`) do.

    python tools/fuxictr_peer.py --data SPLIT --dataset criteo --seed 1 --work SCRATCH --out peer.json

SPLIT holds train.csv, valid.csv and test.csv with a header, a `label` of 0/1 and the feature columns; an empty field
is a missing value. Times are wall seconds.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import statistics
import time
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path

# Set before FuxiCTR starts Ray: no usage report leaves the machine while the clock runs.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

START = time.perf_counter()  # before the imports: loading torch and Ray is part of what a user waits for

import polars as pl  # noqa: E402
import torch  # noqa: E402
from fuxictr.datasets.criteo import CustomizedFeatureProcessor as CriteoProcessor  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.features import FeatureMap  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.preprocess import build_dataset  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.dataloaders import RankDataLoader  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.models import BaseModel  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.torch_utils import seed_everything  # type: ignore[import-not-found]  # noqa: E402
from torch import Tensor, nn  # noqa: E402

logger = logging.getLogger("fuxictr_peer")

METRICS = ["logloss", "AUC"]


class Numeric(Enum):
    """What FuxiCTR does with a numeric column, missing values being 0 in every case."""

    RAW = "raw"  # the value itself
    STANDARD = "standard"  # FuxiCTR's StandardScaler: zero mean, unit variance over the training rows
    MINMAX = "minmax"  # FuxiCTR's MinMaxScaler over the training rows, as the published criteo_x1 files are scaled
    LOG = "log"  # sign(x) log(1 + |x|), then StandardScaler: not FuxiCTR's own, to tell preprocessing from the rest
    BUCKET = "bucket"  # FuxiCTR's `convert_to_bucket` for Criteo: floor(log(x)^2) as a category (criteo_x4)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One benchmark: columns and hyper-parameters. What both share is FuxiCTR's published protocol (see `fit`)."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    embedding_dim: int
    num_cross_layers: int
    embedding_regularizer: float
    dropout: float
    batch_norm: bool
    hidden_units: tuple[int, ...] = (400, 400, 400)
    batch_size: int = 4096
    learning_rate: float = 1e-3
    max_epochs: int = 100


SETTINGS = {
    "criteo": Settings(
        numeric=tuple(f"I{i}" for i in range(1, 14)),
        categorical=tuple(f"C{i}" for i in range(1, 27)),
        embedding_dim=16,
        num_cross_layers=3,
        embedding_regularizer=1e-5,
        dropout=0.0,
        batch_norm=False,
    ),
    # BARS' best DCNv2 on frappe_x1.
    "frappe": Settings(
        numeric=(),
        categorical=(
            "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"
        ),
        embedding_dim=10,
        num_cross_layers=4,
        embedding_regularizer=0.05,
        dropout=0.4,
        batch_norm=True,
    ),
}  # fmt: skip


class Processor(CriteoProcessor):  # type: ignore[misc]
    """FuxiCTR's processor (its Criteo one, for `convert_to_bucket`) with the logarithm it lacks."""

    def signed_log(self, name: str) -> pl.Expr:
        """Return sign(x) log(1 + |x|) of one column, float."""
        return pl.col(name).sign() * pl.col(name).abs().log1p()


class DCNv2(BaseModel):  # type: ignore[misc]
    """Parallel DCNv2 of FuxiCTR's layers, which also keeps the time of each epoch.

    Args:
        feature_map: FuxiCTR's description of the encoded columns.
        settings: hyper-parameters.
        model_root: folder for the best checkpoint.
    Source: Wang et al., WWW 2021, arXiv:2008.13535; layout as in FuxiCTR's model zoo.
    """

    def __init__(self, feature_map: FeatureMap, settings: Settings, model_root: Path) -> None:
        super().__init__(
            feature_map,
            model_id="DCNv2",
            monitor="AUC",
            monitor_mode="max",
            early_stop_patience=2,
            reduce_lr_on_plateau=True,
            embedding_regularizer=settings.embedding_regularizer,
            verbose=0,
            metrics=METRICS,
            model_root=str(model_root),
        )
        self.embedding_layer = FeatureEmbedding(feature_map, settings.embedding_dim)
        input_dim = feature_map.sum_emb_out_dim()
        self.crossnet = CrossNetV2(input_dim, settings.num_cross_layers)
        self.parallel_dnn = MLP_Block(
            input_dim=input_dim,
            hidden_units=list(settings.hidden_units),
            dropout_rates=settings.dropout,
            batch_norm=settings.batch_norm,
        )
        self.fc = nn.Linear(input_dim + settings.hidden_units[-1], 1)
        self.compile("adam", "binary_crossentropy", settings.learning_rate)
        self.reset_parameters()
        self.train_seconds: list[float] = []  # per epoch, validation left out
        self.epoch_seconds: list[float] = []  # per epoch, with validation and checkpoint
        self._eval_seconds = 0.0

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `{"y_pred": probabilities}`, float32, shape (B, 1)."""
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        joined = torch.cat([self.crossnet(embedded), self.parallel_dnn(embedded)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(joined))}

    def eval_step(self) -> None:
        """Validate as FuxiCTR does, and note the seconds."""
        start = time.perf_counter()
        super().eval_step()
        self._eval_seconds += time.perf_counter() - start

    def train_epoch(self, data_generator: object) -> None:
        """Train one epoch as FuxiCTR does (it validates inside), and note the seconds with and without validation."""
        self._eval_seconds = 0.0
        start = time.perf_counter()
        super().train_epoch(data_generator)
        seconds = time.perf_counter() - start
        self.epoch_seconds.append(seconds)
        self.train_seconds.append(seconds - self._eval_seconds)


def feature_columns(settings: Settings, numeric: Numeric) -> list[dict[str, object]]:
    """Return FuxiCTR's `feature_cols` for these columns."""
    number: dict[str, object] = {"active": True, "dtype": "float", "type": "numeric", "fill_na": 0.0}
    if numeric is Numeric.STANDARD:
        number["normalizer"] = "StandardScaler"
    elif numeric is Numeric.MINMAX:
        number["normalizer"] = "MinMaxScaler"
    elif numeric is Numeric.LOG:
        number |= {"normalizer": "StandardScaler", "preprocess": "signed_log"}
    elif numeric is Numeric.BUCKET:
        number |= {"type": "categorical", "preprocess": "convert_to_bucket", "fill_na": 0}
    category: dict[str, object] = {"active": True, "dtype": "str", "type": "categorical", "fill_na": ""}
    columns = [{"name": list(settings.numeric)} | number] if settings.numeric else []
    return [*columns, {"name": list(settings.categorical)} | category]


def preprocess(data: Path, settings: Settings, numeric: Numeric, work: Path) -> tuple[FeatureMap, dict[str, str]]:
    """Fit FuxiCTR's vocabularies on the training rows and encode all three parts.

    Returns:
        the feature map, and the encoded Parquet files as `train_data`, `valid_data`, `test_data`.
    """
    encoder = Processor(
        feature_cols=feature_columns(settings, numeric),
        label_col={"name": "label", "dtype": "float"},
        dataset_id="split",
        data_root=str(work),
    )
    raw = {f"{part}_data": str(data / f"{part}.csv") for part in ("train", "valid", "test")}
    train, valid, test = build_dataset(encoder, **raw, min_categr_count=1)
    feature_map = FeatureMap("split", encoder.data_dir)
    feature_map.load(encoder.json_file, {"embedding_dim": settings.embedding_dim})
    return feature_map, {"train_data": train, "valid_data": valid, "test_data": test}


def fit(model: DCNv2, files: dict[str, str], settings: Settings) -> tuple[int, dict[str, float], dict[str, float]]:
    """Train with FuxiCTR's published protocol, then score the best epoch on validation and test.

    The protocol: Adam; validation AUC every epoch; learning rate x 0.1 after an epoch without gain; stop after two in
    a row; best epoch reloaded; gradients clipped to norm 10 (`BaseModel`'s own behaviour and defaults).

    Returns:
        number of training rows, validation metrics, test metrics (`AUC`, `logloss`).
    """
    loaders = {"batch_size": settings.batch_size, "data_format": "parquet", "num_workers": 3}
    train, valid = RankDataLoader(model.feature_map, stage="train", shuffle=True, **files, **loaders)
    model.fit(train, epochs=settings.max_epochs, validation_data=valid)
    valid_metrics = model.evaluate(valid)
    test = RankDataLoader(model.feature_map, stage="test", shuffle=False, **files, **loaders)
    return train.num_samples, valid_metrics, model.evaluate(test)


def run(data: Path, settings: Settings, numeric: Numeric, seed: int, work: Path) -> dict[str, object]:
    """Do everything from CSV to test metrics; return the flat record that is written as JSON."""
    seed_everything(seed)
    begin = time.perf_counter()
    feature_map, files = preprocess(data, settings, numeric, work)
    preprocessed = time.perf_counter()
    model = DCNv2(feature_map, settings, work)
    num_train_rows, valid, test = fit(model, files, settings)
    return {
        "seed": seed,
        "versions": {package: version(package) for package in ("fuxictr", "torch", "ray", "polars")},
        "num_threads": torch.get_num_threads(),
        "numeric": numeric.value,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_train_rows": num_train_rows,
        "num_epochs": len(model.epoch_seconds),
        "import_seconds": begin - START,
        "preprocess_seconds": preprocessed - begin,
        "epoch_seconds": model.epoch_seconds,
        "train_epoch_seconds": model.train_seconds,
        "train_rows_per_second": num_train_rows / statistics.median(model.train_seconds),
        "total_seconds": time.perf_counter() - START,
        "validation_auc": valid["AUC"],
        "validation_log_loss": valid["logloss"],
        "test_auc": test["AUC"],
        "test_log_loss": test["logloss"],
        # Linux counts ru_maxrss in KiB. This is the training process; Ray's own processes come on top.
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Parse the command line, run, write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv, valid.csv, test.csv")
    parser.add_argument("--dataset", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder; emptied first")
    parser.add_argument("--out", type=Path, required=True, help="JSON record to write")
    parser.add_argument("--numeric", choices=[n.value for n in Numeric], default=Numeric.STANDARD.value)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # FuxiCTR reuses encoded files that it finds, which would leave the preprocessing out of the measurement.
    shutil.rmtree(args.work, ignore_errors=True)
    (args.work / "split").mkdir(parents=True)
    record = run(args.data, SETTINGS[args.dataset], Numeric(args.numeric), args.seed, args.work.resolve())
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    logger.info("test AUC %.4f, log loss %.4f", record["test_auc"], record["test_log_loss"])


if __name__ == "__main__":
    main()
