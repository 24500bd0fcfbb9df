"""The written comparison: valid JSON, Markdown without HTML, a page that stands alone and that a real browser shows."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.evaluate.compare import compare
from recsys.evaluate.compare_config import CompareConfig
from recsys.evaluate.compare_page import render_comparison, write_comparison
from recsys.evaluate.compared import Comparison, Cost
from recsys.evaluate.config import EvaluateConfig
from tests.evaluate.compare_world import world
from tests.evaluate.test_report import Page

HOSTILE = '<img src=x onerror="alert(1)">'
FACTS = {"dataset": "<i>frappe</i>", "written": "2026-11-21"}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Two candidates, one of them of two seeds and with a hostile name, and slices."""
    frames = world(1, users=200, rows=5, num_runs=4, noise=(1.5, 0.3, 0.4, 1.5))
    names = ["base_seed1", f"{HOSTILE}_seed1", f"{HOSTILE}_seed2", "other_seed1"]
    config = CompareConfig(group_key="user", slices=["device"], group_seeds=True, num_replicates=40)
    named = dict(zip(names, frames.values(), strict=True))
    found = compare(named, config, EvaluateConfig(min_slice_rows=100))
    costs = tuple(Cost(method=m.name, embedding_bytes=10.0**n) for n, m in enumerate(found.methods, start=5))
    return replace(found, costs=costs, notes=("Encoded <b>otherwise</b>.",))


@pytest.fixture(scope="module")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_comparison(comparison, folder, FACTS)
    return folder


def test_page_nests_loads_nothing_and_shows_hostile_names_as_text(folder: Path) -> None:
    html = (folder / "compare.html").read_text()
    page = Page(html)
    assert HOSTILE in page.text and "<i>frappe</i>" in page.text and "Encoded <b>otherwise</b>." in page.text
    assert not {"img", "link", "iframe", "i", "b"} & set(page.tags)
    assert page.tags.count("script") == 1 and page.tags.count("style") >= 1
    outside = [(tag, name, value) for tag, name, value in page.attributes if name in ("src", "href", "data")]
    assert all(value.startswith("#") for _, _, value in outside), outside
    assert "default-src 'none'" in html and not re.search(r"https?://", html)
    identities = re.findall(r'\sid="([^"]*)"', html)
    assert len(identities) == len(set(identities))


def test_every_part_is_there(folder: Path, comparison: Comparison) -> None:
    page = Page((folder / "compare.html").read_text())
    for heading in ("Verdict", "All rows", "Runs by method", "Slices", "What it costs", "How to read this"):
        assert heading in page.text, heading
    assert page.tags.count("svg") == 4, "differences, seeds, and slices of two candidates"
    rows = len(comparison.overall) + len(comparison.slices) + len(comparison.costs)
    assert page.tags.count("tr") == rows + 3


def test_json_holds_everything_and_no_nan(folder: Path, comparison: Comparison) -> None:
    found = json.loads((folder / "compare.json").read_text(), parse_constant=pytest.fail)
    assert len(found["overall"]) == 12 and len(found["slices"]) == len(comparison.slices) == 18
    assert set(found["verdicts"]) == {HOSTILE, "other"} and found["facts"] == FACTS
    for difference in found["overall"] + found["slices"]:
        for value in (difference["p_value"], difference["difference"], difference["seed_error"]):
            assert (value["value"] is None) == bool(value["undefined_reason"])


def test_markdown_has_whole_tables_and_no_html(folder: Path) -> None:
    text = (folder / "compare.md").read_text()
    assert "<img" not in text and "&lt;img" in text
    tables = [block for block in re.split(r"\n\n+", text) if block.startswith("|")]
    assert len(tables) >= 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}) == 1, table


def test_nothing_to_show_is_still_a_page() -> None:
    frames = world(1, users=3, rows=2)
    found = compare(frames, CompareConfig(group_key="user", num_replicates=20), EvaluateConfig())
    page = Page(render_comparison(found, {}))
    assert "No verdict on run1" in page.text and "svg" not in page.tags and "undefined" in page.text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_it(folder: Path, tmp_path: Path) -> None:
    """What the browser made of it: its figures are drawn, its script ran without an error, nothing was refused."""
    html = (folder / "compare.html").read_text()
    probe = (
        "window.onerror = m => document.title = 'error ' + m;"
        "document.addEventListener('securitypolicyviolation', e => document.title = 'blocked ' + e.blockedURI);"
        "addEventListener('load', () => { const button = document.querySelector('#overall button'); button.click();"
        "document.body.dataset.seen = [...document.querySelectorAll('figure svg')].filter("
        "s => s.getBoundingClientRect().height > 50).length + ' figures, ' + "
        "button.parentElement.getAttribute('aria-sort') + ', ' + document.title; });"
    )
    (tmp_path / "page.html").write_text(html.replace("<script>", f"<script>{probe}", 1))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen is not None, done.stderr[-2000:]
    assert seen.group(1) == "4 figures, ascending, 2 candidates against base · comparison"
