"""Score raw rows of a CSV file with an exported bundle, where this project is not installed.

Needs torch and xxhash, nothing else:

    python -I score.py BUNDLE [ROWS.csv]

ROWS.csv has a header with the columns of the bundle's schema, in any order; an empty field is a missing value. Without
it, the bundle's own `example.csv` is scored and compared with the scores that export stored for these rows.
"""

import csv
import importlib.abc
import json
import sys
from pathlib import Path
from typing import Any

import torch
import xxhash

MISSING_KEY = -(2**63)


class OnlyWhatServingNeeds(importlib.abc.MetaPathFinder):
    """Refuses to import the project and what it is built on, also where they happen to be installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Raise for those names; leave the rest to the finders behind."""
        if fullname.partition(".")[0] in ("recsys", "pipelines", "torchrec", "fbgemm_gpu", "polars"):
            raise ModuleNotFoundError(f"{fullname} may not be imported where a bundle is served")


sys.meta_path.insert(0, OnlyWhatServingNeeds())


def key_of(text: str, key_type: str) -> int:
    """The int64 key of one raw value: integers as themselves, text by xxh64 of its UTF-8 bytes, seed 0."""
    if text == "":
        return MISSING_KEY
    if key_type == "integer":
        return int(text)
    unsigned = xxhash.xxh64_intdigest(text.encode())
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def tensors_of(rows: list[dict[str, str]], schema: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The model's input: plain named tensors of raw values."""
    features = {}
    for numeric in schema["numeric"]:
        values = [float(row[numeric["name"]] or "nan") for row in rows]
        features[numeric["name"]] = torch.tensor(values, dtype=torch.float32)
    for column in schema["categorical"]:
        name, key_type = column["name"], column["key_type"]
        if column["multi_valued"]:
            lists = [row[name].split(column["separator"]) if row[name] else [] for row in rows]
            features[f"{name}__lengths"] = torch.tensor([len(values) for values in lists])
            texts = [text for values in lists for text in values]
            if column.get("weights"):
                given = [row[column["weights"]] for row in rows]
                weights = [float(text) for texts in given if texts for text in texts.split(column["separator"])]
                features[f"{name}__weights"] = torch.tensor(weights, dtype=torch.float32)
        else:
            texts = [row[name] for row in rows]
        features[name] = torch.tensor([key_of(text, key_type) for text in texts], dtype=torch.int64)
    return features


def main(bundle: Path, source: Path | None) -> None:
    """Load, score, print."""
    schema = json.loads((bundle / "manifest.json").read_text())["schema"]
    with (source or bundle / "example.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    model = torch.jit.load(bundle / "model.pt")
    logits, probabilities = model(tensors_of(rows, schema))
    for number, (logit, probability) in enumerate(zip(logits.tolist(), probabilities.tolist(), strict=True)):
        if number < 5:
            print(f"row {number}: logit {logit:+.4f}, probability {probability:.4f}")
    print(f"{len(rows)} raw rows scored by {bundle / 'model.pt'} in a process that cannot import recsys")
    if source is None:
        expected = torch.load(bundle / "golden.pt", weights_only=True)["logits"][: len(rows)]
        error = (logits - expected).abs().max().item()
        print(f"largest difference from the trained model's logits: {error:.2e}")
        if error > 1e-3:
            sys.exit("the scores differ from those of the trained model")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
