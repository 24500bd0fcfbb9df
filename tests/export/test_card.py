"""The model card: its program runs whatever the schema, and it says briefly where the model comes from."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.core.schema import MISSING_KEY, CategoricalFeature, KeyType, NumericFeature, Schema
from recsys.data.raw import string_keys
from recsys.embeddings.full import FullConfig
from recsys.export.bundle import Golden, write_bundle
from recsys.export.card import KEY_HELPER
from recsys.models.lr import LRConfig
from tests.export.bundles import LOOSE, METRICS
from tests.export.test_real_parts import make_world, raw_rows, trained_logits

SCORE = Path(__file__).resolve().parents[2] / "tools" / "serve_example" / "score.py"
MIXED = Schema(
    label="click",
    numeric=(NumericFeature(name="price"),),
    categorical=(
        CategoricalFeature(name="user", key_type=KeyType.INTEGER),
        CategoricalFeature(name="tags", multi_valued=True),
        CategoricalFeature(name="visits", key_type=KeyType.INTEGER, multi_valued=True),
        CategoricalFeature(name='the "item"'),
    ),
)
RECORD = {
    "commit": "0123456789ab",
    "finished_at": "2026-11-21T09:00:00+0000",
    "resolved": {"dataset": {"name": "clicks", "files": ["data/clicks.csv"] * 100}},
    "config": {"train": {"epochs": 3}},
}


@pytest.fixture(scope="module")
def mixed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose multi-valued columns stand between single-valued ones."""
    folder = tmp_path_factory.mktemp("mixed")
    ctr, trained = make_world(FullConfig(), LRConfig(), MIXED)
    rows = raw_rows(MIXED)
    logits = trained_logits(ctr, trained, rows)
    golden = Golden(features=rows, logits=logits, trained_logits=logits, labels=(logits > logits.median()).float())
    lineage = {"run": "r1", "data": "d1", "train": RECORD, "inputs": {"train": "t1"}}
    write_bundle(folder, trained, golden, config=LOOSE, metrics=METRICS, lineage=lineage)
    return folder


@pytest.mark.parametrize("text", ["", "(missing)", "red", "ü"])
def test_the_programs_make_the_keys_of_ingest(text: str) -> None:
    made: dict[str, Any] = {}
    exec(KEY_HELPER, made)
    (wanted,) = string_keys(pl.Series([text])).to_list()
    assert made["key"](text) == runpy.run_path(str(SCORE))["key_of"](text, "string") == wanted
    assert (wanted == MISSING_KEY) == (text in ("", "(missing)"))


def test_the_program_runs_with_multi_valued_columns_between_others(mixed_bundle: Path) -> None:
    card = (mixed_bundle / "MODEL_CARD.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code],
        cwd=mixed_bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert 0 < first < 1 and 0 < second < 1 and first != second


def test_the_origin_is_a_short_table(mixed_bundle: Path) -> None:
    origin = (mixed_bundle / "MODEL_CARD.md").read_text().partition("## Origin\n")[2]
    for line in (
        "| run | r1 |",
        "| commit | 0123456789ab |",
        "| data | clicks d1 |",
        f"| trained | {RECORD['finished_at']} |",
    ):
        assert line in origin.splitlines()
    assert len(origin) < 600 and "{" not in origin
