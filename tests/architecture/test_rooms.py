"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REDIS_FILES = ("redis_",)
RAY_FILES = ("actor.py", "deployment.py", "ray_", "serve_")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def sources() -> Iterator[Path]:
    for room in ("papa", "services"):
        yield from (path for path in (ROOT / room).rglob("*.py") if "stubs" not in path.parts)


@cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements anywhere in a file."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names: set[str] = set()
    for node in imports(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "allowed"), [("redis", REDIS_FILES), ("ray", RAY_FILES), ("opentelemetry", ("otel.py",))]
)
def test_a_technology_stays_in_files_named_for_it(package: str, allowed: tuple[str, ...]) -> None:
    users = [path for path in sources() if package in imported(path)]
    strangers = [str(path.relative_to(ROOT)) for path in users if not path.name.startswith(allowed)]
    assert users
    assert not strangers


def test_a_file_name_says_what_is_inside() -> None:
    vague = [str(path.relative_to(ROOT)) for path in sources() if path.stem in VAGUE]
    assert not vague


def test_tests_import_no_other_test_module() -> None:
    """Shared helpers are in the support module of their room."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = [node for node in imports(path) if isinstance(node, ast.ImportFrom)]
        modules = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names if node.module]
        tests = [name for name in modules if re.match(r"tests(\.\w+)*\.test_", name)]
        assert not tests, f"{path.relative_to(ROOT)} imports {tests}"


@pytest.mark.parametrize(("walk", "most"), [("Feedback events", 35), ("A revision", 28)])
def test_the_walks_lead_along_imports(walk: str, most: int) -> None:
    """Every file of a walk is there once, and imports another one of it or is imported by one."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Two walks")[2].partition("## Words")[0]
    table = text.partition(f"**{walk}, ")[2].partition("**\n\n")[2].partition("\n\n")[0]
    stops = re.findall(r"`([\w/]+\.(?:py|lua))`", table)
    assert len(set(stops)) == len(stops) <= most
    paths = [ROOT / stop if stop.startswith("papa/") else ROOT / "services" / "papa_serving" / stop for stop in stops]
    assert not [str(path) for path in paths if not path.is_file()]
    modules = {path: module_of(path) for path in paths if path.suffix == ".py"}
    ends = {path: imported_modules(path) & {*modules.values()} for path in modules}
    reached = {*modules.values()} & {name for names in ends.values() for name in names}
    assert not [str(path) for path, name in modules.items() if not ends[path] and name not in reached]


def module_of(path: Path) -> str:
    base = ROOT / "services" if "services" in path.parts else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts)


def imported_modules(path: Path) -> set[str]:
    """The modules that a file imports names from, anywhere in it."""
    nodes = [node for node in imports(path) if isinstance(node, ast.ImportFrom)]
    return {name for node in nodes for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names)) if name}


def test_what_users_think_of_items_is_a_label() -> None:
    """One word for one idea, see "Words" in ARCHITECTURE."""
    command = ["git", "grep", "-lniE", r"\bopinions?\b", "--", "*.py", "*.md", "*.proto", "*.lua", "*.yaml", "*.go"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert not found


def test_pickle_is_nowhere() -> None:
    assert not [str(path) for path in sources() if imported(path) & {"pickle", "cloudpickle", "dill", "joblib"}]


def test_what_is_missing_is_abstract_or_an_argument() -> None:
    """A method that only raises NotImplementedError fails at its call, an abstract one already for the type checker."""
    assert not [str(path) for path in sources() if "NotImplementedError" in path.read_text()]


@pytest.mark.parametrize("made", ["items/g-00.png", "papa-data/redis.sock", "demo-out/report.json"])
def test_what_commands_write_into_a_clone_is_not_offered_to_git(made: str) -> None:
    """By their default folders: papa generate and papa items get, papa up, papa demo."""
    subprocess.run(["git", "check-ignore", "--quiet", made], cwd=ROOT, check=True)


def test_nothing_generated_or_large_is_tracked_by_accident() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in tracked.split("\0") if name]
    assert not [str(path) for path in paths if path.is_file() and path.stat().st_size > 12 * 2**20]
    assert not [str(path) for path in paths if path.suffix in {".pyc", ".log", ".aof", ".rdb"}]
