"""Backbones for the engine's tests."""

from __future__ import annotations

import pytest

from papa.denoiser import Denoiser
from tests.generator.support import GatedDenoiser, tiny_denoiser


@pytest.fixture
def gate() -> GatedDenoiser:
    return GatedDenoiser()


@pytest.fixture(scope="session")
def reference() -> Denoiser:
    """The same backbone for the naive way: an engine's denoiser is its alone."""
    return tiny_denoiser()
