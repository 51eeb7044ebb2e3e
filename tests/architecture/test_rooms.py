"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REDIS_FILES = ("redis_",)
RAY_FILES = ("actor.py", "deployment.py", "ray_", "serve_")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def sources() -> Iterator[Path]:
    for room in ("papa", "services"):
        yield from (path for path in (ROOT / room).rglob("*.py") if "stubs" not in path.parts)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    """What several of them need is in a support module of its room."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        modules = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names if node.module]
        tests = [name for name in modules if re.match(r"tests(\.\w+)*\.test_", name)]
        assert not tests, f"{path.relative_to(ROOT)} imports {tests}"


def test_pickle_is_nowhere() -> None:
    assert not [str(path) for path in sources() if imported(path) & {"pickle", "cloudpickle", "dill", "joblib"}]


def test_nothing_generated_or_large_is_tracked_by_accident() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in tracked.split("\0") if name]
    assert not [str(path) for path in paths if path.is_file() and path.stat().st_size > 12 * 2**20]
    assert not [str(path) for path in paths if path.suffix in {".pyc", ".log", ".aof", ".rdb"}]
