"""A collector, and this process recording for it."""

from tests.tracing.collector import collector, recording  # noqa: F401 - fixtures
