"""The gateway under test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.service import Service
from tests.tracing.conftest import collector, recording  # noqa: F401 - fixtures


@pytest.fixture
async def unstarted() -> AsyncIterator[Service]:
    """For tests that want other settings: they start it themselves."""
    service = Service()
    yield service
    await service.stop()


@pytest.fixture
async def service(unstarted: Service) -> Service:
    """Running, with the default limits."""
    await unstarted.start()
    return unstarted
