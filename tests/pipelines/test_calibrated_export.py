"""What evaluation fitted on validation is what the exported file, and so `predict`, answers."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.core.errors import StageError
from recsys.evaluate import FittedCalibration
from tests.pipelines.world import SMALL, do

AGAIN = "overwrite=true"


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_exported_probabilities_are_calibrated(kind: str, runs: Path) -> None:
    options = (*SMALL, f"evaluate.calibration={kind}")
    before = pl.read_parquet(runs / "small/export/golden.parquet")
    with pytest.raises(StageError, match=rf"made with evaluate.calibration=none, this is evaluate.calibration={kind}"):
        do("export", runs, *options, AGAIN)
    for stage in ("evaluate", "export"):
        do(stage, runs, *options, AGAIN)
    do("predict", runs, *options)
    fitted = FittedCalibration.from_json(json.loads((runs / "small/evaluate/calibration.json").read_text()))
    scores = pl.read_parquet(runs / "small/predict/scores.parquet")
    golden = pl.read_parquet(runs / "small/export/golden.parquet")
    assert golden["logit"].equals(before["logit"])
    tested = pl.read_parquet(runs / "small/evaluate/predictions.parquet")
    torch.testing.assert_close(scores["logit"].to_torch(), tested["logit"].to_torch(), rtol=1e-5, atol=1e-5)
    for found in (scores, golden):
        expected = torch.sigmoid(fitted.apply(found["logit"].to_torch())).float()
        torch.testing.assert_close(found["probability"].to_torch(), expected, rtol=0, atol=1e-6)
    manifest = json.loads((runs / "small/export/manifest.json").read_text())
    facts = manifest["lineage"]["calibration"]
    assert (facts["kind"], facts["split"], facts["num_rows"]) == (kind, "validation", 300) and "knots" not in facts
    do("export", runs, *options)  # unchanged, so nothing to do


def test_probabilities_stay_as_they_are_when_asked(runs: Path) -> None:
    options = (*SMALL, "evaluate.calibration=platt", "export.calibrated=false")
    do("export", runs, *options, AGAIN)
    golden = pl.read_parquet(runs / "small/export/golden.parquet")
    sigmoid = torch.sigmoid(golden["logit"].to_torch())
    torch.testing.assert_close(golden["probability"].to_torch(), sigmoid)


def test_a_map_of_another_training_is_refused(runs: Path) -> None:
    options = (*SMALL, "evaluate.calibration=platt")
    do("evaluate", runs, *options, AGAIN)
    do("train", runs, *options, "seed=2", AGAIN)
    with pytest.raises(StageError, match=r"evaluate was made with other options \(inputs.train is"):
        do("export", runs, *options, "seed=2", AGAIN)
