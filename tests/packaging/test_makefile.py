"""The make targets that need no network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> str:
    # These tests may run below a make: what it hands down would change what this one says and does.
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    }
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_names_every_target() -> None:
    listed = {line.split()[1] for line in make("help").splitlines()}
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert listed == set(phony.split()[1:])


def test_packages_are_installed_again_only_when_the_lock_or_the_project_changes(tmp_path: Path) -> None:
    venv = f"VENV={tmp_path}/venv"
    assert "pip install" in make("-n", "up", venv)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    (tmp_path / "venv" / ".installed-server").touch()
    assert "pip install" not in make("-n", "up", venv)
    assert "pip install" in make("-n", "test", venv)
