"""Fixtures: a gateway that runs, and one that a test starts itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.support.service import Service


@pytest.fixture
async def unstarted() -> AsyncIterator[Service]:
    """A service that the test starts itself, with other settings."""
    service = Service()
    yield service
    await service.stop()


@pytest.fixture
async def service(unstarted: Service) -> Service:
    """Running, with the default limits."""
    await unstarted.start()
    return unstarted
