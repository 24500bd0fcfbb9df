"""The peer's side: FuxiCTR preprocesses, trains and tests one model of its own zoo on one given split.

This file runs in FuxiCTR's own virtual environment (`tools/fuxictr_setup.py` makes it) and imports nothing of ours.

    python tools/fuxictr_peer.py --zoo REPOSITORY --data SPLIT --settings s.json --seed 1 --work SCRATCH --out peer.json

SPLIT holds train.csv, valid.csv and test.csv with a header, a `label` of 0/1 and the feature columns; an empty field
is a missing value. Rows that an earlier run encoded in SCRATCH the same way are taken from there. Times are wall
seconds.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import resource
import shutil
import statistics
import sys
import threading
import time
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Set before FuxiCTR starts Ray: no usage report leaves the machine while the clock runs.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

START = time.perf_counter()  # before the imports: loading torch and Ray is part of what a user waits for

import polars as pl  # noqa: E402
import torch  # noqa: E402
from fuxictr.datasets.criteo import CustomizedFeatureProcessor as CriteoProcessor  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.features import FeatureMap  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.preprocess import build_dataset  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.dataloaders import RankDataLoader  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.models import BaseModel  # type: ignore[import-not-found]  # noqa: E402
from fuxictr.pytorch.torch_utils import seed_everything  # type: ignore[import-not-found]  # noqa: E402

logger = logging.getLogger("fuxictr_peer")

METRICS = ["logloss", "AUC"]


class Numeric(Enum):
    """What FuxiCTR does with a numeric column, missing values being 0 in every case."""

    RAW = "raw"  # the value itself
    STANDARD = "standard"  # FuxiCTR's StandardScaler: zero mean, unit variance over the training rows
    MINMAX = "minmax"  # FuxiCTR's MinMaxScaler over the training rows, as the published criteo_x1 files are scaled
    LOG = "log"  # sign(x) log(1 + |x|), then StandardScaler: not FuxiCTR's own, to tell preprocessing from the rest
    BUCKET = "bucket"  # FuxiCTR's `convert_to_bucket` for Criteo: floor(log(x)^2) as a category (criteo_x4)


class Processor(CriteoProcessor):  # type: ignore[misc]
    """FuxiCTR's processor (its Criteo one, for `convert_to_bucket`) with the logarithm it lacks."""

    def signed_log(self, name: str) -> pl.Expr:
        """Return sign(x) log(1 + |x|) of one column, float."""
        return pl.col(name).sign() * pl.col(name).abs().log1p()


class EpochTimes(BaseModel):  # type: ignore[misc]
    """Keeps the seconds of each epoch. Stands before a model of the zoo among the bases of a class."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.train_seconds: list[float] = []  # per epoch, validation left out
        self.epoch_seconds: list[float] = []  # per epoch, with validation and checkpoint
        self._eval_seconds = 0.0

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


def build_model(settings: dict[str, Any], zoo: Path, feature_map: FeatureMap, folder: Path) -> EpochTimes:
    """Return the model of the zoo, with FuxiCTR's published protocol, checkpoints below `folder`.

    The protocol: Adam; validation AUC every epoch; learning rate x 0.1 after an epoch without gain; stop after two in
    a row; best epoch reloaded; gradients clipped to norm 10 (`BaseModel`'s own behaviour and defaults).
    """
    spec = importlib.util.spec_from_file_location("zoo", zoo / "model_zoo" / settings["zoo_file"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    timed = type("Timed", (EpochTimes, getattr(module, settings["model"])), {})
    (folder / feature_map.dataset_id).mkdir(parents=True, exist_ok=True)  # of checkpoints, which it does not make
    model: EpochTimes = timed(
        feature_map,
        model_id=settings["model"],
        learning_rate=settings["learning_rate"],
        optimizer="adam",
        loss="binary_crossentropy",
        monitor="AUC",
        monitor_mode="max",
        early_stop_patience=2,
        reduce_lr_on_plateau=True,
        verbose=0,
        metrics=METRICS,
        model_root=str(folder),
        **settings["arguments"],
    )
    return model


def feature_columns(settings: dict[str, Any]) -> list[dict[str, object]]:
    """Return FuxiCTR's `feature_cols` for these columns."""
    numeric = Numeric(settings["numeric_treatment"])
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
    columns = [{"name": list(settings["numeric"])} | number] if settings["numeric"] else []
    return [*columns, {"name": list(settings["categorical"])} | category]


def preprocess(data: Path, settings: dict[str, Any], work: Path) -> tuple[FeatureMap, dict[str, str]]:
    """Fit FuxiCTR's vocabularies on the training rows and encode all three parts, unless that was done before.

    Returns:
        the feature map, and the encoded Parquet files as `train_data`, `valid_data`, `test_data`.
    """
    columns = feature_columns(settings)
    name = "split-" + hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:8]
    raw = {f"{part}_data": str(data / f"{part}.csv") for part in ("train", "valid", "test")}
    label = {"name": "label", "dtype": "float"}
    with (work / ".lock").open("w") as lock:  # another model's run may be encoding the same rows
        fcntl.flock(lock, fcntl.LOCK_EX)
        encoder = Processor(feature_cols=columns, label_col=label, dataset_id=name, data_root=str(work))
        folder, done = Path(encoder.data_dir), work / f"{name}.json"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            done.write_text(json.dumps(build_dataset(encoder, **raw, min_categr_count=1)))
        train, valid, test = json.loads(done.read_text())
    feature_map = FeatureMap(name, encoder.data_dir)
    feature_map.load(encoder.json_file, {"embedding_dim": settings["embedding_dim"]})
    return feature_map, {"train_data": train, "valid_data": valid, "test_data": test}


def fit(
    model: EpochTimes, files: dict[str, str], settings: dict[str, Any]
) -> tuple[int, dict[str, float], dict[str, float]]:
    """Train, then score the best epoch on validation and test.

    Returns:
        number of training rows, validation metrics, test metrics (`AUC`, `logloss`).
    """
    loaders = {"batch_size": settings["batch_size"], "data_format": "parquet", "num_workers": 3}
    train, valid = RankDataLoader(model.feature_map, stage="train", shuffle=True, **files, **loaders)
    model.fit(train, epochs=settings["max_epochs"], validation_data=valid)
    valid_metrics = model.evaluate(valid)
    test = RankDataLoader(model.feature_map, stage="test", shuffle=False, **files, **loaders)
    return train.num_samples, valid_metrics, model.evaluate(test)


def run(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, object]:
    """Do everything from CSV to test metrics; return the flat record that is written as JSON."""
    seed_everything(args.seed)
    begin = time.perf_counter()
    feature_map, files = preprocess(args.data, settings, args.work)
    preprocessed = time.perf_counter()
    model = build_model(settings, args.zoo, feature_map, args.work / args.out.stem)
    num_train_rows, valid, test = fit(model, files, settings)
    return {
        "seed": args.seed,
        "settings": settings,
        "versions": {package: version(package) for package in ("fuxictr", "torch", "ray", "polars")},
        "num_threads": torch.get_num_threads(),
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


def end_with_parent() -> None:
    """End when standard input does: whoever started this was stopped, and may start it anew."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Parse the command line, run, write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True, help="FuxiCTR's repository, which holds model_zoo/")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv, valid.csv, test.csv")
    parser.add_argument("--settings", type=Path, required=True, help="JSON of `PeerSettings` (tools/fuxictr_setup.py)")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for encoded rows and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="JSON record to write")
    args = parser.parse_args()
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    record = run(args, json.loads(args.settings.read_text()))
    aside = args.out.with_suffix(".partial")
    aside.write_text(json.dumps(record, indent=2) + "\n")
    aside.rename(args.out)
    logger.info("test AUC %.4f, log loss %.4f", record["test_auc"], record["test_log_loss"])


if __name__ == "__main__":
    main()
