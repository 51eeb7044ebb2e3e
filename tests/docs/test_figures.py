"""Figures in prose that follow from the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from papa.config import DEFAULT_LORA
from papa.denoiser import SHIPPED, load_denoiser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def adapter_size() -> int:
    return load_denoiser(str(SHIPPED / "fashion_mnist"), DEFAULT_LORA).layout.size


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("README.md", "An adapter is a flat vector of {:,} numbers"),
        ("docs/algorithm.md", "{:,} numbers per user"),
        ("docs/operations.md", "the shipped backbone's adapters have {:,} parameters"),
    ],
)
def test_the_size_of_an_adapter_is_that_of_the_code(page: str, sentence: str, adapter_size: int) -> None:
    assert sentence.format(adapter_size) in " ".join((ROOT / page).read_text().split())
