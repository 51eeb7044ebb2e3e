"""The sentences of the page that a person writes: `findings.md` beside this file, a section a figure."""

from __future__ import annotations

from pathlib import Path

from benchmarks.sections import sections

CHOICES, OPEN = "choices", "open"
"""Sections that belong to no figure: how the defaults were chosen, and what was not run."""


def findings() -> dict[str, str]:
    """Section name → its text."""
    return sections(Path(__file__).with_suffix(".md"))
