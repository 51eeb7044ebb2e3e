"""A collector, and this process recording for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from papa_serving import tracing
from papa_serving.settings.tracing import TracingSettings

from tests.tracing.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def recording(collector: Collector) -> Iterator[Collector]:
    """The collector of what this process does."""
    tracing.begin(TracingSettings(enabled=True, endpoint=collector.endpoint), "papa-test")
    yield collector
    tracing.end()
