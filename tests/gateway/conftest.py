"""The gateway under test, and a collector of its spans."""

from tests.gateway.support.fixtures import service, unstarted  # noqa: F401 - fixtures
from tests.tracing.conftest import collector, recording  # noqa: F401 - fixtures
