import inspect
import re

import pytest

from recsys.core import errors, progress
from recsys.core.progress import ProgressBar


def test_a_log_file_gets_a_last_line_with_amount_rate_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("train", total=3_000, unit="rows") as bar:
        bar.advance(1_000)
        bar.note("loss 0.4500")
        bar.advance(2_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"train: 3,000/3,000 rows, [\d,]+/s, 0 s left loss 0\.4500\n", err)


def test_a_log_file_gets_a_line_when_time_has_passed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with ProgressBar("ingest", total=4, unit="files") as bar:
        bar.advance(1)
        bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    # the last line is not said twice
    assert [line.split(",")[0] for line in lines] == ["ingest: 1/4 files", "ingest: 2/4 files"]


def test_what_was_done_before_is_no_rate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    with ProgressBar("ingest", total=1_000) as bar:
        bar.skip(900)
        bar.advance(40)
    assert capsys.readouterr().err.startswith("ingest: 940/1,000 rows, 2/s, 30 s left")


def test_no_line_before_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("ingest", total=4)
    for _ in range(4):
        bar.advance(1)
    assert capsys.readouterr().err == ""


def test_nothing_is_said_when_disabled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with ProgressBar("train", total=1, enabled=False) as bar:
        bar.advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_failure_passes_and_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with ProgressBar("train", total=2) as bar:
            bar.advance(1)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [n for n, e in inspect.getmembers(errors, inspect.isclass)])
def test_every_error_is_ours_to_print(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.RecsysError)


def test_value_errors_are_value_errors() -> None:
    assert issubclass(errors.ConfigError, ValueError) and issubclass(errors.DataError, ValueError)
