"""A gateway whose backend learns, or does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.cli.conftest import papa
from tests.demo.learner import Learner
from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["papa", "service", "unstarted"]


@pytest.fixture(params=[True])
async def learner(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Learner]:
    """`indirect` parameter False: it takes feedback and changes nothing."""
    learner = Learner(service, learns=request.param)
    training = asyncio.create_task(learner.train())
    yield learner
    training.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await training
