"""FuxiCTR's training step on one batch, whenever it is asked for: runs in FuxiCTR's own virtual environment.

    python -m tools.fuxictr_step --zoo REPOSITORY --settings s.json --batch batch.pt --threads 2

Prints `ready` when the model stands, and `done` after the step that each line on standard input asks for; ends with
standard input. batch.pt holds `sizes`, ids of each categorical column, and `inputs`, (B,) of every column and `label`.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from fuxictr.features import FeatureMap  # type: ignore[import-not-found]

from tools.fuxictr_peer import EpochTimes, build_model

MAX_GRADIENT_NORM = 10.0
"""FuxiCTR's `fit` sets it, and its step clips to it."""


def feature_map(sizes: Mapping[str, int], numeric: list[str], embedding_dim: int) -> FeatureMap:
    """Return FuxiCTR's description of the columns."""
    found = FeatureMap("generated", "")
    found.labels, found.default_emb_dim = ["label"], embedding_dim
    for name in numeric:
        found.features[name] = {"source": "", "type": "numeric"}
    for name, size in sizes.items():
        found.features[name] = {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": size}
    found.num_fields, found.total_features = len(found.features), sum(sizes.values()) + len(numeric)
    found.set_column_index()
    return found


def built(args: argparse.Namespace, sizes: Mapping[str, int], folder: Path) -> EpochTimes:
    """Return the model of the zoo, ready to train."""
    settings = json.loads(args.settings.read_text())
    model = build_model(settings, args.zoo, feature_map(sizes, settings["numeric"], settings["embedding_dim"]), folder)
    model._max_gradient_norm = MAX_GRADIENT_NORM
    model.train()
    return model


def main() -> None:
    """Step when told."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True, help="FuxiCTR's repository, which holds model_zoo/")
    parser.add_argument("--settings", type=Path, required=True, help="JSON of `PeerSettings` (tools/fuxictr_setup.py)")
    parser.add_argument("--batch", type=Path, required=True, help="what torch.save wrote: sizes and inputs")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what FuxiCTR prints is not an answer
    torch.set_num_threads(args.threads)
    given = torch.load(args.batch)
    with tempfile.TemporaryDirectory() as folder:
        model = built(args, given["sizes"], Path(folder))
        print("ready", file=answers)
        for _ in sys.stdin:
            model.train_step(given["inputs"])
            print("done", file=answers)


if __name__ == "__main__":
    main()
