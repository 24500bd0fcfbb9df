"""The house rules that no linter knows: who imports whom, how long things may be, what a tracked file may not hold.

A failure names file and line, and how to mend it. The tables here are the rules; change one only together with the
README's Decisions list.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("recsys", "pipelines", "tools", "tests")

ROOMS: dict[str, set[str]] = {
    "core": set(),
    "ops": set(),
    "metrics": {"core"},
    "data": {"core", "ops"},
    "embeddings": {"core", "ops"},
    "models": {"core", "ops"},
    "train": {"core", "metrics"},
    "evaluate": {"core", "metrics"},
    "export": {"core", "ops"},
    "retrieval": {"core", "ops", "metrics"},
    "search": {"core", "embeddings"},
}
"""Room of `recsys` -> the other rooms that it may import."""

RESTRICTED: dict[str, set[str]] = {
    "polars": {"recsys.data", "recsys.evaluate", "pipelines", "tools"},
    "polars_hash": {"recsys.data", "recsys.evaluate", "pipelines", "tools"},
    "hydra": {"pipelines"},
    "omegaconf": {"pipelines"},
    "torch.jit": {"recsys.export", "tools"},
    "pipelines": {"pipelines", "tools"},
    "tools": {"tools"},
    "tests": set(),
    "pandas": set(),
    "lightning": set(),
}
"""Package -> the places that may import it; a package that is not named here may be imported by `CLOSED` rooms only if
those name it. `tests` may import everything, but `tools` only below tests/tools."""

CLOSED: dict[str, set[str]] = {"recsys.core": {"torch", "torchrec", "rich"}, "recsys.ops": {"torch"}}
"""Place -> all that it may import beside the standard library and its rooms."""

MODULE_LINES, FUNCTION_LINES, CONSTRUCTOR_ARGUMENTS = 300, 30, 5
FUNCTION_EXCEPTIONS: dict[str, str] = {}
"""`path:function` -> why it has to be long."""

TRACES = re.compile(
    r"(?<![\w.\-/])/(?:work|root|home|opt|tmp)/\w"  # a path of one machine
    r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org"  # a registry's address: pip's own configuration knows it
)


def sources() -> list[Path]:
    """Python files of the project, relative to its root."""
    found = (path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
    return sorted(path.relative_to(REPOSITORY) for path in found)


def place_of(path: Path) -> str:
    """`recsys.<room>`, `tests.tools`, or the top folder for files elsewhere."""
    if path.parts[:2] == ("tests", "tools"):
        return "tests.tools"
    return ".".join(path.parts[:2]) if path.parts[0] == "recsys" and len(path.parts) > 2 else path.parts[0]


def imported_names(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions, and of every use of `torch.jit` as an attribute."""
    package = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.jit":
            yield node.lineno, "torch.jit"


def import_faults(source: str, path: Path) -> list[str]:
    """What is wrong with the imports of one file."""
    found: dict[int, str] = {}  # one per line is enough
    for line, name in imported_names(ast.parse(source), path):
        fault = import_fault(place_of(path), name)
        if fault is not None:
            found.setdefault(line, f"{path}:{line}: {fault}")
    return list(found.values())


def import_fault(place: str, name: str) -> str | None:
    """What is wrong when `place` imports `name`, with the way out; None when nothing is."""
    parts = name.split(".")
    if parts[0] == "recsys" and place.startswith("recsys"):
        room = parts[1] if len(parts) > 1 else ""
        own = place.partition(".")[2]
        if room != own and room not in ROOMS.get(own, set()):
            allowed = sorted(ROOMS.get(own, set())) or "no other room"
            return (
                f"{place} imports {name}, but may import {allowed}. Pass the object in, or join the two in pipelines/."
            )
        return None
    if place.startswith("tests"):
        forbidden = parts[0] == "tools" and place != "tests.tools"
        return f"imports {name}: nobody imports tools/. Move what is shared into recsys/." if forbidden else None
    for package in (parts[0], ".".join(parts[:2])):
        if place not in RESTRICTED.get(package, {place}):
            where = sorted(RESTRICTED[package]) or "nowhere"
            return (
                f"{place} imports {name}, which belongs into {where}. Move this code there, or pass in what it needs."
            )
    return closed_fault(place, parts[0])


def closed_fault(place: str, package: str) -> str | None:
    """What is wrong when a closed room imports a third party's package."""
    if place not in CLOSED or package in CLOSED[place] | set(sys.stdlib_module_names):
        return None
    return f"{place} imports {package}, but may import only {sorted(CLOSED[place])}. Do this in another room."


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of a function without docstrings, blank lines and comments."""
    skipped: set[int] = set()
    for node in ast.walk(function):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            skipped.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    numbers = set(range(function.lineno, (function.end_lineno or 0) + 1)) - skipped
    return sum(bool(lines[n - 1].strip()) and not lines[n - 1].lstrip().startswith("#") for n in numbers)


def size_faults(source: str, path: Path) -> list[str]:
    """What is too long in one file: the module, a function, a constructor's arguments."""
    lines, faults = source.splitlines(), []
    if len(lines) > MODULE_LINES:
        faults.append(
            f"{path}:{MODULE_LINES}: {len(lines)} lines, at most {MODULE_LINES}. Split it by what it is about."
        )
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where, length = f"{path}:{node.lineno}: {node.name}", code_lines(node, lines)
        if length > FUNCTION_LINES and f"{path}:{node.name}" not in FUNCTION_EXCEPTIONS:
            faults.append(f"{where} has {length} lines of code, at most {FUNCTION_LINES}. Give a part of it a name.")
        taken = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) - 1
        if node.name == "__init__" and taken > CONSTRUCTOR_ARGUMENTS:
            faults.append(
                f"{where} takes {taken} arguments, at most {CONSTRUCTOR_ARGUMENTS}. Group them in a dataclass."
            )
    return faults


def tracked_files() -> list[Path]:
    """Files that git knows; the test skips outside a checkout."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so no file is tracked")
    return [REPOSITORY / name for name in listing.stdout.decode().split("\0") if name and (REPOSITORY / name).is_file()]


def report(faults: list[str]) -> str:
    return f"{len(faults)} fault(s):\n" + "\n".join(faults)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in (REPOSITORY / "recsys").glob("*/__init__.py")}
    assert rooms == set(ROOMS), (
        f"rooms on disk and in ROOMS differ by {sorted(rooms ^ set(ROOMS))}: add a row or move the code"
    )


def test_imports_follow_the_table() -> None:
    faults = [fault for path in sources() for fault in import_faults((REPOSITORY / path).read_text(), path)]
    assert not faults, report(faults)


def test_nothing_is_too_long() -> None:
    faults = [fault for path in sources() for fault in size_faults((REPOSITORY / path).read_text(), path)]
    assert not faults, report(faults)


def test_no_tracked_file_names_a_machine_path_or_a_registry() -> None:
    faults = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if TRACES.search(line):
                faults.append(
                    f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]!r} holds for one machine only. "
                    "Make it relative to the repository, or an option."
                )
    assert not faults, report(faults)


def test_ranks_that_a_test_starts_leave_as_those_of_a_pipeline() -> None:
    started = re.compile(r'^if __name__ == "__main__"|^    mp\.spawn\(', re.MULTILINE)
    faults = [
        f"{path}: a rank that ends through the interpreter aborts now and then (pipelines.entry.leave). Call leave()."
        for path in sources()
        if path.parts[0] == "tests"
        and started.search(text := (REPOSITORY / path).read_text())
        and "process_group(" in text
        and "leave()" not in text
    ]
    assert not faults, report(faults)


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    inexact = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", line)]
    assert not inexact, f"constraints.txt: {inexact} must read name==version"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    names = {re.split(r"[<>=!~ \[]", need)[0].lower() for need in wanted}
    missing = names - {line.split("==")[0].lower() for line in lines}
    assert not missing, f"pyproject.toml asks for {sorted(missing)}: add the version that was tested to constraints.txt"


@pytest.mark.parametrize(
    ("path", "source", "part"),
    [
        ("recsys/models/x.py", "from recsys.embeddings import full", "recsys.embeddings.full"),
        ("recsys/models/x.py", "def f():\n    import recsys.train.step", "x.py:2"),
        ("recsys/models/x.py", "from ..train import step", "recsys.train.step"),
        ("recsys/__init__.py", "from recsys.core import plan", "no other room"),
        ("recsys/train/x.py", "import polars as pl", "polars"),
        ("recsys/data/x.py", "from omegaconf import DictConfig", "pipelines"),
        ("recsys/models/x.py", "from torch import jit", "torch.jit"),
        ("recsys/models/x.py", "import torch\nf = torch.jit.script(g)", "x.py:2"),
        ("recsys/core/x.py", "import numpy", "numpy"),
        ("recsys/ops/x.py", "import torchrec", "torchrec"),
        ("recsys/core/x.py", "from pipelines import stage", "pipelines"),
        ("pipelines/x.py", "from tools import bench", "tools"),
        ("tests/test_x.py", "import tools.bench", "tools"),
    ],
)
def test_forbidden_import_is_found(path: str, source: str, part: str) -> None:
    faults = import_faults(source, Path(path))
    assert len(faults) == 1
    assert part in faults[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "recsys/models/x.py",
            "from recsys.core.plan import TablePlan\nfrom recsys.models.layers import MLP\nimport numpy",
        ),
        ("recsys/data/x.py", "import polars\nfrom recsys.ops import hashing\nfrom . import loader"),
        ("recsys/export/x.py", "import torch.jit\nx = torch.jit.load"),
        ("pipelines/x.py", "import hydra\nfrom recsys.train import step"),
        ("tests/tools/test_x.py", "import tools.x"),
        ("tests/test_x.py", "import hydra, polars, recsys.core\nimport torch.jit\nfrom tests.world import x"),
    ],
)
def test_permitted_import_passes(path: str, source: str) -> None:
    assert import_faults(source, Path(path)) == []


def test_sizes_are_counted_without_docstring_blank_and_comment() -> None:
    body = "\n".join(["    '''Doc", "    more'''", "", "    # why", *["    x = 1"] * FUNCTION_LINES])
    (fault,) = size_faults(f"def f():\n{body}\n", Path("x.py"))
    assert f"has {FUNCTION_LINES + 1} lines" in fault
    assert size_faults("def f():\n" + body.rsplit("\n", 1)[0], Path("x.py")) == []
    assert "6 arguments" in size_faults("class A:\n    def __init__(self, a, b, c, *, d, e, f): ...", Path("x.py"))[0]
    assert "301 lines" in size_faults("x = 1\n" * 301, Path("x.py"))[0]
