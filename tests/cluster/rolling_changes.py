"""Replicas that are replaced under load, two and then one: too long for every run of the tests, see `make cluster`."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Service
from tests.cluster.likes import assert_every_like_is_learnt
from tests.cluster.nodes import until
from tests.cluster.traffic import Traffic


@pytest.mark.parametrize("replicas", [2, 1])
def test_replicas_are_replaced_without_a_failed_call(service: Service, replicas: int) -> None:
    """One by one; where there is only one, callers wait."""
    limits = {"generator": {"autoscaling": {"minReplicas": replicas, "maxReplicas": replicas}}}
    if "generator-2" not in service.cluster.nodes:
        service.start("generator-2", "generator")
    service.release.deploy(limits)
    until(lambda: sum(map(len, service.replicas().values())) == replicas)
    before = set[int]().union(*service.replicas().values())
    with Traffic(service.address, f"rolling-{replicas}", 2) as traffic:
        traffic.go_on()
        service.release.deploy(limits, {"PAPA_LOG__LEVEL": "debug" if replicas == 2 else "warning"})
        traffic.go_on()
    assert traffic.errors == []
    after = set[int]().union(*service.replicas().values())
    assert len(after) == replicas and not before & after
    assert_every_like_is_learnt(service, traffic)
