"""Reads the interpretation of figures, which people write: a Markdown file with one section for each figure."""

from __future__ import annotations

import re
from pathlib import Path


def sections(page: Path) -> dict[str, str]:
    """Name of a section (`## name`) → its text. Raises ValueError where a name comes twice."""
    parts = re.split(r"^## (\S+)\n", page.read_text(), flags=re.MULTILINE)[1:]
    names, texts = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{page} has a section twice: {sorted(names)}")
    return {name: text.strip() for name, text in zip(names, texts, strict=True)}
