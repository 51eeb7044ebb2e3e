"""A gateway with switches, for the test of the tests."""

from tests.gateway.support.fixtures import service, unstarted

__all__ = ["service", "unstarted"]
