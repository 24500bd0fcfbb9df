"""Calibrated probabilities in a bundle: those that evaluation computes, beside logits that stay as they were."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.export import served
from recsys.core.errors import ParityError
from recsys.core.specs import RowType
from recsys.evaluate import FittedCalibration
from recsys.export.bundle import GOLDEN_TENSORS_NAME, build_serving_model, write_bundle
from recsys.export.calibration import UNCALIBRATED, ServedCalibration
from recsys.export.manifest import BundleManifest
from recsys.export.parity import Parity
from recsys.export.script import load_scripted, operator_kinds, script_model
from tests.export.bundles import LOOSE, METRICS, make_golden
from tests.export.world import make_trained

FITTED: dict[str, object] = {"split": "validation", "num_rows": 1234, "num_positives": 300}
STEPS = [-3.0, -0.5, math.nextafter(-0.5, 0), 0.25, 2.0]
MAPS: dict[str, dict[str, object]] = {
    "platt": {"kind": "platt", "slope": 0.6, "intercept": -0.4},
    "backwards": {"kind": "platt", "slope": -1.5, "intercept": 0.1},
    "ignorant": {"kind": "platt", "slope": 0.0, "intercept": -1.0},
    "isotonic": {"kind": "isotonic", "knots": STEPS, "probabilities": [0.02, 0.1, 0.4, 0.4, 0.9]},  # steep at -0.5
    "one point": {"kind": "isotonic", "knots": [0.3], "probabilities": [0.25]},
}
LOGITS = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor(STEPS)])


def calibration_of(name: str) -> ServedCalibration:
    return served(FittedCalibration.from_json(MAPS[name] | FITTED))


@pytest.mark.parametrize("name", MAPS)
def test_a_map_serves_what_evaluation_computes(name: str) -> None:
    calibration = calibration_of(name)
    scripted = script_model(calibration.module)
    found = scripted(LOGITS)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), calibration.reference(LOGITS), rtol=0, atol=1e-7)
    assert {kind.split("::")[0] for kind in operator_kinds(scripted)} <= {"aten", "prim"}


@pytest.mark.parametrize("name", ["platt", "isotonic"])
def test_a_calibrated_bundle(name: str, tmp_path: Path) -> None:
    calibration, golden = calibration_of(name), make_golden("qr_product")
    trained = make_trained("qr_product")
    lineage = {"calibration": {"kind": MAPS[name]["kind"], **FITTED}}
    write_bundle(
        tmp_path, replace(trained, calibration=calibration), golden, config=LOOSE, metrics=METRICS, lineage=lineage
    )
    manifest, stored = BundleManifest.read(tmp_path), torch.load(tmp_path / GOLDEN_TENSORS_NAME, weights_only=True)
    plain = build_serving_model(trained, RowType.FLOAT32)[1](stored["features"])
    for row_type in (RowType.FLOAT32, RowType.INT8):
        logits, probabilities = load_scripted(manifest.model_path(tmp_path, row_type))(stored["features"])
        torch.testing.assert_close(probabilities, calibration.reference(logits).float(), rtol=0, atol=1e-7)
        if row_type is RowType.FLOAT32:
            torch.testing.assert_close(logits, plain[0], rtol=1e-6, atol=1e-6)  # as without a calibration
            assert not torch.allclose(probabilities, plain[1], atol=1e-2)
    torch.testing.assert_close(stored["probabilities"], calibration.reference(golden.logits[:5]).float())
    assert all(model.max_probability_error < 1e-7 for model in Parity.read(tmp_path).models)
    card = " ".join((tmp_path / "MODEL_CARD.md").read_text().split())
    assert f"calibrated, by a map of the logits ({MAPS[name]['kind']}) that was fitted on 1,234 validation rows" in card
    assert json.loads((tmp_path / "manifest.json").read_text())["lineage"] == lineage


def test_without_a_map_probabilities_are_sigmoids(bundle: Path) -> None:
    stored = torch.load(bundle / GOLDEN_TENSORS_NAME, weights_only=True)
    torch.testing.assert_close(stored["probabilities"], torch.sigmoid(stored["logits"]))
    assert "Probabilities are the sigmoid of the logits." in (bundle / "MODEL_CARD.md").read_text()


def test_a_map_counts_with_the_dense_part() -> None:
    def head_bytes(calibration: ServedCalibration) -> int:
        serving = build_serving_model(replace(make_trained("full"), calibration=calibration), RowType.FLOAT32)[1]
        return sum(t.numel() * t.element_size() for part in (serving.head, serving.probabilities)
                   for t in part.state_dict().values())  # fmt: skip

    assert head_bytes(calibration_of("isotonic")) == head_bytes(UNCALIBRATED) + 2 * 8 * len(STEPS)


def test_a_map_that_serves_something_else_is_refused(tmp_path: Path) -> None:
    def other(logits: Tensor) -> Tensor:
        return torch.sigmoid(logits.double() * 0.6001 - 0.4)

    wrong = replace(make_trained("full"), calibration=replace(calibration_of("platt"), reference=other))
    with pytest.raises(ParityError, match=r"a probability is .* away from what the calibration makes of its logit"):
        write_bundle(tmp_path, wrong, make_golden("full"), config=LOOSE, metrics=METRICS, lineage={})
    assert not (tmp_path / "manifest.json").exists()
