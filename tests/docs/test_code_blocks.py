"""What the documentation shows runs as it stands, or is at least what it says it is."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])
RUN_AGAINST_A_SERVICE = ("README.md", "docs/quickstart.md")
"""By test_against_a_service.py."""
PARSED_ALONE = {"docs/security.md"}
"""It names certificates and a host of the reader's; tests/gateway/test_tls.py does what it shows."""
PARSERS = {"python": ast.parse, "toml": tomllib.loads, "yaml": yaml.safe_load, "json": json.loads}
"""What only a cluster or another language could run is parsed; "sh" by bash."""


def blocks(page: str, language: str = "python") -> list[str]:
    return [code for kind, code in BLOCK.findall((ROOT / page).read_text()) if kind == language]


def every_block() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for language, code in BLOCK.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), language, code


@pytest.mark.parametrize("page", ["docs/researcher-guide.md"])
def test_the_page_runs(page: str, tmp_path: Path) -> None:
    code = "\n".join(blocks(page))
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"success [01]\.\d\d, coverage [01]\.\d\d", result.stdout)


def test_what_is_not_run_parses() -> None:
    for page, language, code in every_block():
        if language == "sh":
            done = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"{page}: {done.stderr}"
        elif language in PARSERS:
            PARSERS[language](code)


def test_every_page_with_python_is_run() -> None:
    """Each is in one of the two tests that run pages; a page with more Python must be added to one."""
    written = {page for page, language, _ in every_block() if language == "python"}
    assert written - PARSED_ALONE == {"docs/researcher-guide.md", *RUN_AGAINST_A_SERVICE}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
