"""The code that the documentation shows: its pages, their blocks, and the commands of their shell blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])
RUN_AGAINST_A_SERVICE = ("README.md", "docs/quickstart.md")
RUN_WITH_A_PICTURE = "docs/catalogue.md"
RUN_FOR_ITS_EVENT = "docs/attribution.md"
"""Pages that test_against_a_service.py runs."""


def blocks(page: str, language: str = "python") -> list[str]:
    return [code for kind, code in BLOCK.findall((ROOT / page).read_text()) if kind == language]


def every_block() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for language, code in BLOCK.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), language, code


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every simple command of the shell blocks, as words without assignments."""
    for page, language, code in every_block():
        if language != "sh":
            continue
        plain = re.sub(r"(^|\s)#.*", "", code.replace("\\\n", " "), flags=re.MULTILINE)
        words = shlex.shlex(plain, posix=True, punctuation_chars="();|&\n")
        words.whitespace_split, words.whitespace = True, " \t\r"
        parts: list[list[str]] = [[]]
        for word in words:
            if set(word) <= set("();|&\n"):
                parts.append([])
            elif not re.fullmatch(r"[A-Z_]+=.*", word):
                parts[-1].append(word)
        yield from ((page, part) for part in parts if part)
