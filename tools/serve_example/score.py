"""Score raw rows of a CSV file with an exported bundle, where this project is not installed.

Needs torch and xxhash, nothing else:

    python -I score.py BUNDLE [ROWS.csv]

ROWS.csv has a header with the columns of the bundle's schema, in any order; an empty field is a missing value. Without
it, the bundle's own `example.csv` is scored and compared with the scores that export stored for these rows.
"""

import csv
import importlib.abc
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import xxhash

MISSING_KEY = -(2**63)
MISSING_TEXTS = ("", "(missing)")  # the second in histories, where an empty value would be none
TRUTH = {"true": "1", "false": "0"}


class OnlyWhatServingNeeds(importlib.abc.MetaPathFinder):
    """Refuses to import the project and what it is built on, also where they happen to be installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Raise for those names; leave the rest to the finders behind."""
        if fullname.partition(".")[0] in ("recsys", "pipelines", "torchrec", "fbgemm_gpu", "polars"):
            raise ModuleNotFoundError(f"{fullname} may not be imported where a bundle is served")


def key_of(text: str, key_type: str) -> int:
    """The int64 key of one raw value: integers as themselves, text by xxh64 of its UTF-8 bytes, seed 0."""
    if text in MISSING_TEXTS:
        return MISSING_KEY
    if key_type == "integer":
        return int(text)
    unsigned = xxhash.xxh64_intdigest(text.encode())
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def seconds_of(text: str, form: str, pattern: str) -> int:
    """Whole seconds since 1970 in UTC of one raw time."""
    if text == "":
        return MISSING_KEY
    if form in ("seconds", "milliseconds"):
        return int(text) // (1000 if form == "milliseconds" else 1)
    if form == "pattern":
        return math.floor(datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp())
    time = datetime.fromisoformat(text)
    return math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def tensors_of(rows: list[dict[str, str]], manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The model's input, plain named tensors of raw values, as the manifest's `inputs` lists them."""
    schema = manifest["schema"]
    columns = {column["name"]: column for column in schema["categorical"]}
    times = {timestamp["name"]: timestamp for timestamp in schema["timestamps"]}
    features = {}
    for tensor in manifest["inputs"]:
        name, _, part = tensor["name"].partition("__")
        column = columns.get(name, {})
        texts = [[row[column["weights"] if part == "weights" else name]] for row in rows]
        if column.get("multi_valued"):  # empty values are none
            texts = [[text for text in value.split(column["separator"]) if text] for (value,) in texts]
        flat = [text for values in texts for text in values]
        if part == "lengths":
            found: list[int] | list[float] = [len(values) for values in texts]
        elif tensor["dtype"] == "float32":
            found = [float(TRUTH.get(text.lower(), text) or "nan") for text in flat]
        elif name in times:
            found = [seconds_of(text, times[name]["form"], times[name]["pattern"]) for text in flat]
        else:
            found = [key_of(text, column["key_type"]) for text in flat]
        features[tensor["name"]] = torch.tensor(found, dtype=getattr(torch, tensor["dtype"]))
    return features


def main(bundle: Path, source: Path | None) -> None:
    """Load, score, print."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    with (source or bundle / "example.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    asked = {tensor["name"].partition("__")[0] for tensor in manifest["inputs"]}
    lacking = sorted(asked - rows[0].keys()) if rows else []
    if lacking or not rows:
        sys.exit(f"{source}: no rows, or no column(s) {lacking}; what side tables and histories say must be there too")
    model = torch.jit.load(bundle / "model.pt")
    outputs, answers = model(tensors_of(rows, manifest))
    name = manifest["outputs"][0]  # "logits"; "outputs" of a model whose labels are numbers
    labels = manifest["labels"]
    for number, pairs in enumerate(torch.stack([outputs, answers], -1).view(-1, len(labels), 2)[:5].tolist()):
        for label, (output, answer) in zip(labels, pairs, strict=True):
            of = f" of {label}" if len(labels) > 1 else ""
            clicks = f"logit{of} {output:+.4f}, probability {answer:.4f}"
            print(f"row {number}: {clicks if name == 'logits' else f'prediction {answer:.6g}'}")
    print(f"{len(rows)} raw rows scored by {bundle / 'model.pt'} in a process that cannot import recsys")
    if source is None:
        expected = torch.load(bundle / "golden.pt", weights_only=True)[name][: len(rows)]
        error = (outputs[: len(expected)] - expected).abs().max().item()  # as many as export was told to keep
        print(f"largest difference from the trained model's {name}: {error:.2e}")
        if error > 1e-3:
            sys.exit("the scores differ from those of the trained model")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.meta_path.insert(0, OnlyWhatServingNeeds())
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
