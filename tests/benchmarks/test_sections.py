"""The findings that a person wrote appear unchanged on the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.capacity.page import CONCLUSIONS
from benchmarks.engine.page import NOTES
from benchmarks.sections import sections

DOCS = Path(__file__).parents[2] / "docs"


def test_a_section_comes_once(tmp_path: Path) -> None:
    page = tmp_path / "notes.md"
    page.write_text("# Notes\n\n## lora\n\nOne.\n\n## both\n\nTwo.\n")
    assert sections(page) == {"lora": "One.", "both": "Two."}
    page.write_text(page.read_text() + "\n## lora\n\nThree.\n")
    with pytest.raises(ValueError, match="lora"):
        sections(page)


def test_each_note_of_a_part_that_was_measured_is_on_the_page_of_the_engine() -> None:
    page = (DOCS / "results" / "engine.md").read_text()
    measured = [name for name in NOTES if f"## {name}\n" in page]
    assert len(measured) > 5
    assert not [name for name in measured if f"## {name}\n\n{NOTES[name]}\n" not in page]


def test_the_conclusions_are_on_the_page_of_the_capacity() -> None:
    assert sections(CONCLUSIONS)["conclusions"] in (DOCS / "capacity.md").read_text()
