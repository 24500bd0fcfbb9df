"""The written files: valid JSON, and a page that stands alone and shows hostile names as text."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from recsys.evaluate import EvaluateConfig, evaluate, render, write

VOID = {"meta", "input", "br", "hr", "img", "link"}
HISTORY: list[dict[str, float | None]] = [
    {"epoch": 1, "train_loss": 0.5, "validation_log_loss": 0.45, "validation_auc": 0.7, "learning_rate": 1e-3},
    {"epoch": 2, "train_loss": 0.4, "validation_log_loss": 0.44, "validation_auc": math.nan, "learning_rate": 1e-3},
    {"epoch": 3, "train_loss": 0.3, "validation_log_loss": None, "learning_rate": 1e-4},
]


class Page(HTMLParser):
    """Collects tags, attributes and text of a page, and checks that elements nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> does not close {self.open}"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(predictions: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    config = EvaluateConfig(group_key="user", slices=["device", "age"])
    context: dict[str, str | int | float | bool | None] = {
        "dataset": "<i>frappe</i>",
        "model": "DCNv2",
        "embedding_bytes": 4_200_000,
        "num_train_rows": 12_345,
        "x": math.inf,
    }
    write(evaluate(predictions, config), folder, context, history=HISTORY)
    return folder


def strict(path: Path) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} holds {constant}, which is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_metrics_are_flat_valid_json(folder: Path) -> None:
    metrics = strict(folder / "metrics.json")
    assert isinstance(metrics, dict)
    assert all(value is None or isinstance(value, (str, int, float)) for value in metrics.values())
    assert 0.5 < metrics["auc"] < 1 and metrics["num_rows"] == 4000
    assert metrics["context.dataset"] == "<i>frappe</i>" and metrics["context.x"] is None


def test_slices_and_reliability_are_valid_json(folder: Path, predictions: pl.DataFrame) -> None:
    slices = strict(folder / "slices.json")
    assert isinstance(slices, list)
    assert {row["value"] for row in slices} >= set(predictions["device"])
    reliability = strict(folder / "reliability.json")
    assert isinstance(reliability, list) and sum(row["count"] for row in reliability) == 4000


def test_undefined_is_null_beside_its_reason(predictions: pl.DataFrame, tmp_path: Path) -> None:
    few = predictions.head(20).with_columns(label=pl.lit(0, pl.Int8))
    write(evaluate(few, EvaluateConfig(slices=["device"])), tmp_path, {})
    metrics, slices = strict(tmp_path / "metrics.json"), strict(tmp_path / "slices.json")
    assert isinstance(metrics, dict) and isinstance(slices, list)
    assert (metrics["auc"], metrics["auc.undefined_reason"]) == (None, "all 20 labels are 0")
    assert all(row["log_loss"] is None and "min_slice_rows" in row["log_loss.undefined_reason"] for row in slices)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "undefined" in text and "all 20 labels are 0" in text and "NaN" not in text and "nan" not in text.split()


def test_page_loads_nothing_from_outside(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in html and "https://" not in html and "@import" not in html
    page = Page(html)
    assert not {"img", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert name not in ("src", "srcset", "action", "onclick"), (tag, name)
        assert name not in ("href", "xlink:href") or value.startswith("#"), (tag, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert ("meta", "content") in {(tag, name) for tag, name, value in page.attributes if "default-src 'none'" in value}


def test_page_has_all_sections_and_references_that_resolve(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 7  # reliability, ROC, gain, histogram, two slice columns, training
    for words in ("Reliability", "Ranking (ROC)", "Scores by label", "Slices", "Training", "4.01 MiB", "12,345"):
        assert words in page.text, words
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = [value[1:] for _, name, value in page.attributes if name == "href"]
    used += [target for _, _, value in page.attributes for target in re.findall(r"url\(#([^)]*)\)", value)]
    assert set(used) <= set(ids) and used


def test_hostile_names_are_shown_not_run(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags.count("script") == 1 and "i" not in [t for t in page.tags if t == "i" and "<i>frappe" in html]
    assert '<script>alert("x")</script>' in page.text and "<i>frappe</i>" in page.text and "$5 & up" in page.text


@pytest.mark.parametrize(
    "name", ["日本語", "\x00\x1b[31m", "-->", "]]>", '" onload="x', "a" * 500, "$x^2$", 'id="a" url(#b)']
)
def test_any_slice_name_gives_a_sound_page(predictions: pl.DataFrame, name: str) -> None:
    evaluation = evaluate(predictions.with_columns(slice=pl.lit(name)), EvaluateConfig(slices=["slice"]))
    page = Page(render(evaluation, {name: name}))
    assert "onload" not in {attribute for _, attribute, _ in page.attributes}
    assert "".join(c if c.isprintable() else "·" for c in name) in page.text


def test_figures_take_their_colours_from_the_style_sheet(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    figures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    drawn = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", figures)) - {"none"}
    assert drawn and all(colour.startswith("var(--") for colour in drawn), drawn
    for variable in drawn:
        assert html.count(f"{variable[4:-1]}:") == 2, f"{variable} needs a value in light and in dark"


def test_empty_evaluation_still_gives_a_page(predictions: pl.DataFrame, tmp_path: Path) -> None:
    write(evaluate(predictions.clear(), EvaluateConfig(slices=["device"])), tmp_path, {"model": "DCNv2"})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "There are no rows to evaluate." in page.text and "svg" not in page.tags


def test_the_same_evaluation_gives_the_same_bytes(predictions: pl.DataFrame) -> None:
    evaluation = evaluate(predictions, EvaluateConfig(slices=["age"]))
    assert render(evaluation, {"seed": 1}, history=HISTORY) == render(evaluation, {"seed": 1}, history=HISTORY)


def test_worse_than_the_base_rate_is_said_in_words(predictions: pl.DataFrame) -> None:
    words = "worse than that of predicting the mean rate for every row (normalised entropy"
    wrong = predictions.with_columns(logit=-pl.col("logit"), probability=1 - pl.col("probability"))
    wrong = wrong.drop("bayes_probability")
    assert words in Page(render(evaluate(wrong, EvaluateConfig()), {})).text
    assert words not in Page(render(evaluate(predictions, EvaluateConfig()), {})).text


def test_the_log_names_the_report_without_the_folder_aside(
    predictions: pl.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "evaluate.partial").mkdir()
    with caplog.at_level("INFO"):
        write(evaluate(predictions, EvaluateConfig()), tmp_path / "evaluate.partial", {})
    assert "wrote report.html (" in caplog.text and "partial" not in caplog.text
