"""The static checks, each one a test: `make lint` runs this folder alone."""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run(str(BIN / "ruff"), "check", ".")


def test_everything_is_formatted() -> None:
    run(str(BIN / "ruff"), "format", "--check", ".")


def test_types_are_strict() -> None:
    run(str(BIN / "mypy"))


def test_rooms_import_only_what_they_may() -> None:
    run(str(BIN / "lint-imports"), "--no-cache")


def test_the_wire_contract_is_lint_clean() -> None:
    run(str(BIN / "buf"), "lint", "protos")


def test_the_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    run(sys.executable, "protos/generate.py", str(tmp_path))
    committed = ROOT / "services" / "papa_serving" / "stubs"
    fresh = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    kept = sorted(path.relative_to(committed) for path in committed.rglob("*.py*") if path.suffix != ".pyc")
    assert [path for path in kept if path != Path("__init__.py")] == fresh
    differing = [path for path in fresh if not filecmp.cmp(tmp_path / path, committed / path, shallow=False)]
    assert not differing, "run `make stubs`"


def test_the_workflows_are_what_github_understands() -> None:
    run(str(BIN / "actionlint"), *map(str, sorted((ROOT / ".github" / "workflows").glob("*.yml"))))


def test_the_hooks_before_a_commit_run_the_tools_of_the_checks() -> None:
    """From the same environment, so that the versions are those of the lock."""
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    entries = {hook["entry"].split()[0] for hook in hooks}
    here = Path(__file__).read_text()
    checked = set(re.findall(r'BIN / "([a-z-]+)"', here)) - {"actionlint"}
    assert entries == {f".venv/bin/{tool}" for tool in checked}
    assert all(hook["language"] == "system" for hook in hooks)


def test_ci_builds_the_examples_where_their_tools_are() -> None:
    """Without its tools an example is skipped, so that the job asks for each of them first."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["examples"]["steps"]]
    (building,) = [step for step in steps if "make examples" in step]
    assert all(f"{tool} " in building.partition("make examples")[0] for tool in ("go", "npm", "protoc"))


def test_ci_covers_the_pythons_that_are_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = [
        each.rpartition(" :: ")[2] for each in promised if each.startswith("Programming Language :: Python :: 3.")
    ]
    assert job["strategy"]["matrix"]["python"] == pythons
    assert any(".ci/run" in step.get("run", "") for step in job["steps"])
