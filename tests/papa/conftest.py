"""The fixtures of this room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from papa.denoiser import Denoiser
from tests.papa.support import save_tiny_backbone, tiny_denoiser


@pytest.fixture(scope="session")
def denoiser() -> Denoiser:
    return tiny_denoiser()


@pytest.fixture
def backbone_folder(tmp_path: Path) -> Path:
    return save_tiny_backbone(tmp_path / "tiny")
