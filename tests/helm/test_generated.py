"""Schema and reference of the chart are those of values.yaml and of the settings."""

from __future__ import annotations

import os
import subprocess
import sys

import yaml

from tests.helm.rendering import CHART, ROOT


def test_schema_and_reference_are_up_to_date():
    command = [sys.executable, str(ROOT / "helm" / "generate.py"), "--check"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr


def test_every_value_is_documented():
    documented = (CHART / "README.md").read_text()
    missing = [
        path for path in _leaves(yaml.safe_load((CHART / "values.yaml").read_text())) if not _told(path, documented)
    ]
    assert missing == []


def _told(path: str, documented: str) -> bool:
    """Whether the value is documented, by its own row or by that of a parent."""
    parts = path.split(".")
    return any(f"| `{'.'.join(parts[:length])}` |" in documented for length in range(1, len(parts) + 1))


def _leaves(values: dict, path: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        here = f"{path}.{name}".lstrip(".")
        found += _leaves(value, here) if isinstance(value, dict) and value else [here]
    return found
