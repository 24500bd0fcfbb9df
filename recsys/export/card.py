"""`MODEL_CARD.md`: what a stranger must know to serve the bundle, with code that runs as it stands."""

import json
from collections.abc import Mapping
from typing import Any

from recsys.core.labels import LabelKind
from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import MISSING_KEY, MISSING_TEXT, KeyType
from recsys.export.border import BorderTensor, TensorType
from recsys.export.manifest import BundleManifest
from recsys.export.parity import Parity, RowTypeParity

CARD_NAME = "MODEL_CARD.md"

_INTRO = """\
# {title}

Predicts {what} (label column {label}) from raw feature values. TorchScript with ATen operators
only: any libtorch, `torch.jit.load` in Python, or Triton's PyTorch backend serves it. Vocabularies, numeric transforms,
hashing and out-of-vocabulary rows are inside.

"""
_SCORING = """\
## Scoring in Python

Needs `torch` and `xxhash`, nothing else.

```python
{code}
```

"""
KEY_HELPER = f'''\
import torch
import xxhash


def key(text):
    """xxh64 of the UTF-8 bytes, seed 0, as a signed 64-bit integer; absent, empty or "{MISSING_TEXT}": missing."""
    if text in (None, "", "{MISSING_TEXT}"):
        return {MISSING_KEY}
    unsigned = xxhash.xxh64_intdigest(text.encode())
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


'''
"""Code that makes keys of text."""
_HELPER = """\
{helper}model = torch.jit.load("model.pt")
features = {{  # two rows
{features}
}}
{outputs} = model(features)
print({answer}.tolist())"""
PREDICTED = {
    LabelKind.CLICK: ("Click model", "the probability of a click"),
    LabelKind.NUMBER: ("Model of a number", "a number, as ratings are"),
}
"""Title, and what is predicted."""


def model_card(manifest: BundleManifest, parity: Parity) -> str:
    """The text of `MODEL_CARD.md`."""
    title, what = PREDICTED[manifest.schema.label_kind]
    what = "the probability that each label is 1" if len(manifest.labels) > 1 else what
    return "".join(
        [
            _INTRO.format(title=title, what=what, label=", ".join(f"`{label}`" for label in manifest.labels)),
            _files(manifest),
            _inputs(manifest),
            _SCORING.format(code=example_code(manifest)),
            _parity(parity, manifest.schema.label_kind, ""),
            *(_parity(each, LabelKind.CLICK, f" of `{label}`") for label, each in parity.other_labels.items()),
            origin(manifest.lineage, {"schema": manifest.schema_fingerprint, **manifest.versions}),
        ]
    )


def example_code(manifest: BundleManifest) -> str:
    """A Python program that scores two made-up rows, next to `model.pt`."""
    strings = {f.name for f in manifest.schema.raw_categories if f.key_type is KeyType.STRING}
    lines = []
    for tensor in manifest.inputs:
        value, why = example_value(tensor, tensor.name in strings)
        # The comment stands behind the comma: in front of it, it would swallow it.
        lines.append(f"    {json.dumps(tensor.name, ensure_ascii=False)}: {value},{why and f'  # {why}'}")
    outputs = {"outputs": ", ".join(manifest.outputs), "answer": manifest.outputs[-1]}
    return _HELPER.format(helper=KEY_HELPER, features="\n".join(lines), **outputs)


def example_value(tensor: BorderTensor, is_string: bool) -> tuple[str, str]:
    """(Python expression of the tensor for two rows, comment or nothing)."""
    if tensor.shape == "N" and tensor.dtype is TensorType.FLOAT32:
        return "torch.tensor([1.0, 0.5])", "of the two values in the first row"
    if tensor.dtype is TensorType.FLOAT32:
        return 'torch.tensor([1.0, float("nan")])', ""
    if tensor.name.endswith(LENGTHS_SUFFIX):
        return "torch.tensor([2, 0])", "two values in the first row, none in the second"
    second = ("blue" if tensor.shape == "N" else "") if is_string else ("11" if tensor.shape == "N" else MISSING_KEY)
    return (f'torch.tensor([key("red"), key("{second}")])' if is_string else f"torch.tensor([7, {second}])"), ""


def _files(manifest: BundleManifest) -> str:
    lines = [
        "## Files\n\n| model | file bytes | embedding bytes | head bytes | encoder bytes |\n|---|---:|---:|---:|---:|\n"
    ]
    for known in manifest.models.values():
        lines.append(
            f"| `{known.file}` | {known.file_bytes:,} | {known.plan_bytes:,} | {known.head_bytes:,} "
            f"| {known.encoder_bytes:,} |\n"
        )
    lines.append(
        "\n`golden.parquet` and `golden.pt` hold raw rows with the trained model's scores, as table and as input "
        "tensors. `manifest.json` has schema, plans, bytes by table, versions and lineage; `config.pbtxt` is for "
        "Triton.\n\n"
    )
    return "".join(lines)


def _inputs(manifest: BundleManifest) -> str:
    lines = [
        "## Inputs and outputs\n\n"
        "One dictionary of tensors of one dimension; B rows, N values of all rows one after the other. A value never "
        "seen in training is valid everywhere.\n\n"
        "| input | type | shape | meaning |\n|---|---|---|---|\n"
    ]
    lines.extend(f"| `{t.name}` | {t.dtype.value} | ({t.shape},) | {t.meaning} |\n" for t in manifest.inputs)
    shape = "(B,) each"
    if len(manifest.labels) > 1:
        shape = f"(B, {len(manifest.labels)}) each, columns {', '.join(f'`{label}`' for label in manifest.labels)}"
    lines.append(f"\nReturns `({', '.join(manifest.outputs)})`, float32 of shape {shape}. ")
    lines.append(_answers(manifest))
    return "".join(lines)


def _answers(manifest: BundleManifest) -> str:
    """Where probabilities or predictions come from."""
    calibration: Mapping[str, Any] | None = manifest.lineage.get("calibration")
    label: Mapping[str, Any] | None = manifest.lineage.get("label")
    if label is not None:
        return (
            f"Predictions are in the label's units: {label['mean']:.6g} + {label['std']:.6g} × output, the mean and "
            f"the standard deviation of {label['count']:,} training labels. They are not kept within the labels' "
            "range.\n\n"
        )
    if calibration is None:
        return "Probabilities are the sigmoid of the logits.\n\n"
    return (
        f"Probabilities are calibrated, by a map of the logits ({calibration['kind']}) that was fitted on "
        f"{calibration['num_rows']:,} {calibration['split']} rows; the logits are as the model was trained.\n\n"
    )


def _parity(parity: Parity, kind: LabelKind, of: str) -> str:
    if kind is LabelKind.NUMBER:
        return _number_parity(parity)
    lines = [
        f"## Parity{of}, over {parity.num_rows:,} rows\n\n"
        f"Trained model: AUC {_number(parity.trained_auc)}, log loss {_number(parity.trained_log_loss)}. "
        f"With frozen embeddings: AUC {_number(parity.frozen_auc)}, log loss {_number(parity.frozen_log_loss)}; "
        "the exported models are compared with that, by their logits.\n\n"
        "| rows stored as | max difference of logits | mean | AUC | difference | log loss | difference |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
    ]
    lines.extend(_parity_line(model) for model in parity.models)
    return "".join([*lines, "\n"])


def _number_parity(parity: Parity) -> str:
    lines = [
        f"## Parity, over {parity.num_rows:,} rows\n\n"
        f"Trained model: RMSE {_number(parity.trained_rmse)}. With frozen embeddings: RMSE "
        f"{_number(parity.frozen_rmse)}; the exported models are compared with that, by their outputs.\n\n"
        "| rows stored as | max difference of outputs | mean | RMSE | change |\n|---|---:|---:|---:|---:|\n"
    ]
    for model in parity.models:
        differences = f"{model.max_abs_logit_difference:.2e} | {model.mean_abs_logit_difference:.2e}"
        figures = f"{_number(model.rmse)} | {_delta(model.rmse_change)}"
        lines.append(f"| {model.row_type.value} | {differences} | {figures} |\n")
    return "".join([*lines, "\n"])


def _parity_line(model: RowTypeParity) -> str:
    cells = [
        model.row_type.value,
        f"{model.max_abs_logit_difference:.2e}",
        f"{model.mean_abs_logit_difference:.2e}",
        _number(model.auc),
        _delta(model.auc_delta),
        _number(model.log_loss),
        _delta(model.log_loss_delta),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6f}"


def _delta(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2e}"


def origin(lineage: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """What made a bundle, in a few lines; `manifest.json` has all of it."""
    trained = lineage.get("train") or {}
    dataset = (trained.get("resolved") or {}).get("dataset") or {}
    known = {
        "run": lineage.get("run"),
        "commit": trained.get("commit"),
        "data": " ".join(str(part) for part in (dataset.get("name"), lineage.get("data")) if part),
        "trained": trained.get("finished_at"),
        **versions,
    }
    lines = [f"| {name} | {value} |\n" for name, value in known.items() if value]
    return "## Origin\n\n| | |\n|---|---|\n" + "".join(lines) + "\n`manifest.json` has the whole configuration.\n"
