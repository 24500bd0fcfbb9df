"""The README's walk-through from one's own rows to served scores does what it says, block by block, as it stands."""

import gzip
import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipelines.model import build_model
from recsys.core.manifest import Manifest
from tests.pipelines.world import do, environment, make_run

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()


def blocks(section: str, language: str) -> list[str]:
    """Code blocks of a language below a heading."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [part.partition("\n```")[0] for part in text.split(f"```{language}\n")[1:]]


def commands(section: str) -> list[list[str]]:
    """Words of every command in the section's shell blocks, without comments."""
    lines = "\n".join(blocks(section, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def raw_rows(seed: int) -> str:
    """CSV rows with the columns of the README's mine.yaml."""
    draw = random.Random(seed)
    lines = ["click,sample_weight,price,user,item,tags,words,word_weights,url,day,time,published"]
    for row in range(1500):
        item = int(30 * draw.random() ** 2)
        tags = "|".join(f"t{draw.randrange(9)}" for _ in range(draw.randrange(4)))
        click = int(draw.random() < 0.2 + 0.6 * (item % 3 == 0))
        day = f"2026-{8 + seed:02d}-{row // 150 + 10:02d}"
        words = [f"w{draw.randrange(7)}" for _ in range(draw.randrange(3))]
        weights = "|".join(f"{draw.random():.2f}" for _ in words)
        what = f"{draw.random() * 50:.2f},{draw.randrange(99)},item-{item},{tags},{'|'.join(words)},{weights},https://x/{item}"
        times = f"{day},{1_790_000_000 + 600 * row},{day}T{draw.randrange(24):02d}:15"
        lines.append(f"{click},{draw.choice([0.5, 1, 2])},{what},{times}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which "Your own data" was followed to its end."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").mkdir()
    (folder / "conf" / "dataset").mkdir(parents=True)
    for part in (1, 2):
        (folder / "data" / f"clicks-{part}.csv.gz").write_bytes(gzip.compress(raw_rows(part).encode()))
    (folder / "new.csv").write_text(raw_rows(3))
    mine, _ = blocks("Your own data", "yaml")
    assert mine.startswith("# conf/dataset/mine.yaml\n")
    proposed = folder / "conf" / "dataset" / "mine.yaml"
    for words in commands("Your own data"):
        if proposed.exists():  # what was proposed is read and changed
            assert 'label: "click"' in proposed.read_text() or proposed.read_text() == mine
            proposed.write_text(mine)
        assert words[:2] == ["python", "-m"]
        # The yaml lies beside the repository's own ones in the walk-through, here in a folder that is added to them.
        command = [sys.executable, *words[1:3], "--config-dir", "conf", *words[3:]]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_own_rows_are_scored(walked: Path) -> None:
    scores = pl.read_parquet(walked / "runs" / "mine_deepfm_unified_seed1" / "predict" / "scores.parquet")
    assert scores.height == 1500 and scores["probability"].is_between(0, 1).all()
    assert scores.columns == ["__row__", "day", "user", "logit", "probability"]


def test_histories_as_in_the_example(walked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, added = (yaml.safe_load(block) for block in blocks("Your own data", "yaml"))
    mine["categorical"] += [each for each in added["categorical"] if each not in mine["categorical"]]
    (walked / "conf" / "dataset" / "past.yaml").write_text(yaml.safe_dump(mine | {"history": added["history"]}))
    monkeypatch.chdir(walked)
    run = do("ingest", walked / "runs", f"hydra.searchpath=[file://{walked}/conf]", "dataset=past")
    lengths = pl.read_parquet(run.stage("ingest") / "test" / "*.parquet")["hist_item"].list.len().to_list()
    assert max(lengths) > 20 > min(lengths) > 0, "test rows are the last ones"


def test_the_serving_program_runs_as_it_stands(walked: Path) -> None:
    (program,) = blocks("Serving", "python")
    command = [sys.executable, "-I", "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=walked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (probability,) = json.loads(done.stdout)
    assert 0 < probability < 1


def test_the_whole_program_scores_the_example(walked: Path) -> None:
    bundle = walked / "runs" / "mine_deepfm_unified_seed1" / "export"
    command = [sys.executable, "-I", "-W", "ignore", str(REPOSITORY / "tools/serve_example/score.py"), str(bundle)]
    done = subprocess.run(command, cwd=walked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    difference = float(done.stdout.rpartition("largest difference from the trained model's logits: ")[2])
    assert difference < 1e-6


def test_the_commands_for_many_ranks_plan_this_data(walked: Path) -> None:
    found = commands("N ranks")
    assert len(found) == 3
    manifest = Manifest.read(next((walked / "runs" / "data").glob("table-*")))
    for words in found:
        overrides = words[words.index("pipelines.train") + 1 :]
        run = make_run(walked / "runs", f"hydra.searchpath=[file://{walked}/conf]", *overrides)
        assert build_model(run.config, manifest, on_meta=True).plan.num_bytes <= 64 * 2**20


def test_no_placeholder_is_left() -> None:
    assert "@@" not in README
