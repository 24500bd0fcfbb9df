"""A sweep's report: the frontier and the choices by hand, and a page that stands alone."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.evaluate.pareto import (
    Cell,
    Failure,
    Refusal,
    Result,
    Sweep,
    TrialResult,
    as_json,
    choices,
    frontier,
    points,
)
from recsys.evaluate.pareto_figure import pareto_figure, size, standalone
from recsys.evaluate.pareto_page import lead, render_sweep, write_sweep
from recsys.evaluate.pareto_tables import markdown
from recsys.evaluate.pareto_trials import still_rising
from tests.evaluate.test_report import Page

FULL_BYTES = 16_000


def result(
    method: str,
    ratio: float,
    seed: int,
    *,
    plan_bytes: int,
    validation: float,
    test: float,
    latency: float | None = 2.5,
) -> Result:
    cell = Cell(
        method=method,
        ratio=ratio,
        seed=seed,
        trial="lr0.1",
        run=f"s/cells/{method}/{ratio:g}x_seed{seed}",
        command=f"python -m pipelines.run embedding={method} 'a=<b>'",
    )
    return Result(
        cell=cell,
        plan_bytes=plan_bytes,
        file_bytes=plan_bytes + 5_000,
        other_bytes=4_000,
        peak_rss_bytes=400 << 20,
        validation_auc=validation,
        test_auc=test,
        test_log_loss=0.5,
        rows_per_second=1000.0,
        latency_ms=latency,
    )


RESULTS = [
    result("full", 1, 1, plan_bytes=16_000, validation=0.80, test=0.79),
    result("full", 1, 2, plan_bytes=16_000, validation=0.80, test=0.81),
    result("hash", 4, 1, plan_bytes=4_000, validation=0.70, test=0.79),
    result("hash", 4, 2, plan_bytes=4_000, validation=0.72, test=0.77),
    result("hash", 16, 1, plan_bytes=1_000, validation=0.68, test=0.69),
    result("hash", 16, 2, plan_bytes=1_000, validation=0.68, test=0.71),
    result("int8", 4, 1, plan_bytes=4_000, validation=0.79, test=0.75),
    result("int8", 4, 2, plan_bytes=4_000, validation=0.79, test=0.76),
    result("lucky", 2, 1, plan_bytes=100, validation=0.99, test=0.82),
]


def sweep(*, results: list[Result]) -> Sweep:
    cell = RESULTS[0].cell
    return Sweep(
        title="DCNv2 on <i>criteo</i>",
        command="python -m pipelines.pareto experiment=pareto/x",
        facts={"seeds": "1, 2"},
        full_bytes=FULL_BYTES,
        ratios=[1, 4, 16],
        num_trials=3,
        request_rows=256,
        num_cells=10,
        results=results,
        trials=[TrialResult(cell=cell, values={"lr": 0.1}, validation_auc=0.8, chosen=True)],
        refusals=[
            Refusal(method="full", ratio=4, floor_bytes=16_000, message="full needs 16,000 bytes"),
            Refusal(method="full", ratio=16, floor_bytes=16_000, message="full needs 16,000 bytes"),
            Refusal(method="odd", ratio=16, floor_bytes=None, message="feature <b> has no vocabulary"),
        ],
        failures=[Failure(cell=cell, message="RuntimeError:\n  <script>alert(1)</script>" + "x" * 1000, log="log.txt")],
    )


def test_points_are_means_with_their_spread() -> None:
    full = points(RESULTS)[0]
    assert (full.method, full.num_seeds, full.test_auc_low, full.test_auc_high) == ("full", 2, 0.79, 0.81)
    assert full.test_auc == pytest.approx(0.80)
    assert full.test_auc_sd == pytest.approx(0.02 / 2**0.5)
    assert points(RESULTS)[-1].test_auc_sd is None


def test_latency_is_told_only_when_all_seeds_have_it() -> None:
    half = [RESULTS[0], result("full", 1, 2, plan_bytes=16_000, validation=0.8, test=0.8, latency=None)]
    assert points(half)[0].latency_ms is None
    assert points(RESULTS)[0].latency_ms == 2.5


def test_frontier() -> None:
    """On validation int8 dominates hash at equal bytes, on test not; a point with one seed of two has no place."""
    found = points(RESULTS)
    assert [(p.method, p.ratio) for p in frontier(found)] == [("hash", 16), ("int8", 4), ("full", 1)]
    assert [p.on_frontier for p in found] == [True, False, True, True, False]


def test_choices_look_at_validation_alone() -> None:
    """At 4× int8 is chosen, though hash is better on test."""
    chosen = choices(points(RESULTS), [1, 4, 16, 1000], FULL_BYTES)
    assert [(c.ratio, c.budget_bytes, c.point.method) for c in chosen] == [
        (1, 16_000, "full"),
        (4, 4_000, "int8"),
        (16, 1_000, "hash"),
    ]


def test_summary_counts_what_is_close_on_validation() -> None:
    """hash is closest on test, by luck; int8 is what validation would have kept."""
    results = [
        result("full", 1, 1, plan_bytes=16_000, validation=0.80, test=0.79),
        result("int8", 4, 1, plan_bytes=4_000, validation=0.7995, test=0.78),
        result("hash", 16, 1, plan_bytes=1_000, validation=0.70, test=0.79),
    ]
    said = lead(sweep(results=results), points(results))
    assert "int8 with 4,000 bytes, 4.0 times less; its test AUC is 0.7800, uncompressed 0.7900." in said


def trials(method: str, aucs: Mapping[float, float]) -> list[TrialResult]:
    """Trials of one method at 4x, by learning rate."""
    cell = replace(RESULTS[0].cell, method=method, ratio=4)
    best = max(aucs, key=lambda rate: aucs[rate])
    return [
        TrialResult(cell=cell, values={"lr": rate}, validation_auc=auc, chosen=rate == best)
        for rate, auc in aucs.items()
    ]


def test_methods_that_still_rise_at_the_end_of_the_range_are_named() -> None:
    tried = [
        *trials("inside", {0.06: 0.74, 0.12: 0.75, 0.24: 0.70}),
        *trials("flat", {0.06: 0.7505, 0.12: 0.75, 0.24: 0.70}),
        *trials("low", {0.06: 0.76, 0.12: 0.75, 0.24: 0.70}),
        *trials("high", {0.06: 0.70, 0.12: 0.75, 0.24: 0.752}),
        *trials("once", {0.06: 0.76}),
    ]
    found = [(each.method, each.tuned, each.value, round(each.gain, 4)) for each in still_rising(tried)]
    assert found == [("low", "lr", 0.06, 0.01), ("high", "lr", 0.24, 0.002)]
    risen = replace(sweep(results=RESULTS), trials=tried)
    said = "low (4× at lr0.06: +0.0100), high (4× at lr0.24: +0.0020)"
    assert said in Page(render_sweep(risen)).text
    assert said in markdown(risen, points(RESULTS), [])
    assert "Best at an end" not in Page(render_sweep(sweep(results=RESULTS))).text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "new"
    write_sweep(sweep(results=RESULTS), folder)
    return folder


def test_page_stands_alone_and_shows_hostile_text_as_text(folder: Path) -> None:
    html = (folder / "pareto.html").read_text()
    page = Page(html)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", html)
    assert {tag for tag in page.tags if tag in ("link", "img", "iframe", "object")} == set()
    assert page.tags.count("script") == 1 and "<script>alert" not in html
    assert "DCNv2 on <i>criteo</i>" in page.text and "'a=<b>'" in page.text


def test_page_says_everything_once_a_method(folder: Path) -> None:
    page = Page((folder / "pareto.html").read_text())
    for said in (
        "3 for each method and budget at the first seed",
        "So far 9 of 10 runs are done. 1 failed.",
        "256 rows",
    ):
        assert said in page.text
    assert "The fewest bytes within 0.001" not in page.text and "No method stays within 0.001" in page.text
    tables = {value for tag, name, value in page.attributes if (tag, name) == ("table", "id")}
    assert tables == {"points", "choices", "cells", "trials", "refusals", "failures"}
    assert page.text.count("full needs 16,000 bytes") == 1


def test_ids_of_the_figures_do_not_meet(folder: Path) -> None:
    page = Page((folder / "pareto.html").read_text())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {"all-clip", "near-clip"} <= set(ids)


def test_numbers_sort_as_numbers(folder: Path) -> None:
    html = (folder / "pareto.html").read_text()
    table = html[html.index('id="points"') :]
    row = table[table.index("<tbody><tr>") : table.index("</tr>", table.index("<tbody><tr>"))]
    assert '<td data-sort="16000">16,000</td>' in row and '<td data-sort="21000">21,000</td>' in row
    assert "★" in row


def test_json_and_markdown_hold_the_same_points(folder: Path) -> None:
    found = json.loads((folder / "pareto.json").read_text())
    assert [(p["method"], p["ratio"]) for p in found["points"]] == [(p.method, p.ratio) for p in points(RESULTS)]
    assert found["results"][0]["cell"]["command"].startswith("python -m pipelines.run")
    lines = (folder / "pareto.md").read_text().splitlines()
    assert sum(line.startswith("| hash |") for line in lines) == 2
    assert "- full at 4×, 16×: needs 16,000 bytes" in lines
    assert len({line.count("|") for line in lines if line.startswith("| ") and "lr0.1" in line}) == 1
    assert all(len(line) < 600 for line in lines)


def test_figure_file_is_valid_xml_of_its_own(folder: Path) -> None:
    root = ET.fromstring((folder / "pareto.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "hash 4×: test AUC 0.7800, 4,000 bytes" in titles


def test_one_point_and_none() -> None:
    assert "No cell is done yet." in render_sweep(sweep(results=[]))
    assert as_json(sweep(results=[]))["points"] == []
    only = points(RESULTS[:1])
    assert ET.fromstring(standalone(pareto_figure("all", only, full_bytes=FULL_BYTES, ratios=[1]))) is not None


def test_sizes_on_the_axis() -> None:
    assert [size(n) for n in (12, 3_000, 20_000_000, 1.5e9)] == ["12 B", "3 kB", "20 MB", "1.5 GB"]
