"""The sentences of the page that a person writes: `findings.md` beside this file, a section a figure."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
CHOICES, OPEN = "choices", "open"
"""Sections that belong to no figure: how the defaults were chosen, and what was not run."""


def findings(page: Path = PAGE) -> dict[str, str]:
    """Section name → its text. Raises ValueError where a name comes twice."""
    parts = re.split(r"^## (\S+)\n", page.read_text(), flags=re.MULTILINE)[1:]
    names, texts = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{page} has a section twice: {sorted(names)}")
    return {name: text.strip() for name, text in zip(names, texts, strict=True)}
