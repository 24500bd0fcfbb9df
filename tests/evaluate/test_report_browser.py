"""The report in a real browser: figures drawn, script without an error, nothing asked of the network, two palettes."""

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from recsys.evaluate import Calibration, EvaluateConfig, FittedCalibration, evaluate, read_statistics, write
from recsys.evaluate.source import Predictions

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")

PROBE = """
const troubles = [];
addEventListener("error", event => troubles.push("error: " + event.message));
document.addEventListener("securitypolicyviolation", event => troubles.push("blocked: " + event.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector("#slices"), button = table.tHead.rows[0].cells[4].firstElementChild;
  button.click();
  const sorted = [...table.tBodies[0].rows].map(row => row.cells[4].dataset.sort).filter(value => value !== "");
  const search = document.querySelector("input[type=search]");
  search.value = "age"; search.dispatchEvent(new Event("input"));
  const seen = {
    figures: [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().height > 50).length,
    tables: document.querySelectorAll("table.sortable").length,
    order: sorted.every((value, at) => at === 0 || +sorted[at - 1] >= +value) ? head(table) : "unsorted",
    left: [...table.tBodies[0].rows].filter(row => !row.hidden).length,
    requests: performance.getEntriesByType("resource").length,
    paper: getComputedStyle(document.body).backgroundColor,
    line: getComputedStyle(document.querySelector("figure svg path[style*='--first']")).stroke,
    wide: document.documentElement.scrollWidth <= innerWidth,
    troubles: troubles.join("; "),
  };
  document.body.dataset.seen = Object.entries(seen).map(entry => entry.join("=")).join("|");
});
const head = table => table.querySelector("th[aria-sort]").getAttribute("aria-sort");
"""


@pytest.fixture(scope="module")
def page(predictions: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    counts = read_statistics(Predictions.of(predictions)).counts
    fitted = FittedCalibration.fit(Calibration.PLATT, counts, split="validation")
    config = EvaluateConfig(group_key="user", slices=["device", "age"], num_buckets=8, num_replicates=20)
    history = [{"epoch": 1, "train_loss": 0.5, "validation_auc": 0.7}, {"epoch": 2, "train_loss": 0.4}]
    evaluation = evaluate(predictions.drop("bayes_probability"), config, calibration=fitted)
    write(evaluation, folder, {"model": "DCNv2"}, history=history)
    html = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "probed.html").write_text(html.replace("<script>", f"<script>{PROBE}", 1), encoding="utf-8")
    return folder / "probed.html"


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_offline(page: Path, tmp_path: Path, dark: bool) -> None:
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--window-size=1280,900", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen = dict(part.split("=", 1) for part in found.group(1).split("|"))
    assert seen.pop("paper") == ("rgb(15, 18, 22)" if dark else "rgb(244, 245, 247)")
    assert seen.pop("line") == ("rgb(116, 174, 240)" if dark else "rgb(40, 103, 178)")
    # Reliability, ROC, gain, histogram, two slice columns, training; metrics, calibration and slices are tables.
    assert seen == {
        "figures": "7", "tables": "3", "order": "descending", "left": "9", "requests": "0", "wide": "true",
        "troubles": "",
    }  # fmt: skip
    assert "CONSOLE" not in done.stderr
