"""Changes and losses while callers generate and like: what they notice, and what has become of every like."""

from __future__ import annotations

from pathlib import Path

import ray
from papa_serving.client import Client
from papa_serving.client.retry import may_retry
from papa_serving.contracts.errors import GeneratorUnavailable

from tests.cluster.conftest import VALUES, Service, gateway, named
from tests.cluster.likes import assert_every_like_is_learnt
from tests.cluster.nodes import until
from tests.cluster.second_cluster import second_cluster
from tests.cluster.traffic import Traffic
from tests.helm.rendering import merged


def test_the_rendered_applications_take_what_the_pods_offer(service: Service) -> None:
    """A replica takes the whole resource of its pod and no CPU, a trainer half of its pod's CPU."""
    left = ray.available_resources()
    assert (left.get("papa_generator", 0), left.get("CPU", 0)) == (0, 0.5)
    written = {path.name.partition("_")[0] for path in (service.folder / "metrics").glob("*.db")}
    assert "gauge" in written, "the processes write where the exporter looks"


def test_generations_under_way_bring_a_second_replica_as_soon_as_a_machine_has_room(service: Service) -> None:
    assert {name: len(pids) for name, pids in service.replicas().items()} == {"generator-1": 1}
    assert {name: len(pids) for name, pids in service.trainers().items()} == {"trainer-1": 1}
    with Traffic(service.address, "crowd", 4, pause=0.0) as traffic:
        until(lambda: service.release.state("generator") == "UPSCALING")
    assert traffic.errors == []
    # What Ray's autoscaler does about the replica that finds no pod.
    service.start("generator-2", "generator")
    until(lambda: set(service.replicas()) == {"generator-1", "generator-2"})
    until(lambda: service.release.state("generator") == "HEALTHY")


def test_defaults_and_limits_change_under_load_without_a_restart_or_a_failed_call(service: Service) -> None:
    before = service.replicas()
    with Client(service.address) as client, Traffic(service.address, "live", 2) as traffic:
        (five,) = client.generate("visitor", 1, seed=1, steps=5).items
        (usual,) = client.generate("visitor", 1, seed=1).items
        assert usual.image != five.image
        traffic.go_on()
        limits = {"drainSeconds": 9, "autoscaling": {"minReplicas": 2}}
        service.release.deploy({"config": {"generator": {"steps": 5}}, "generator": limits})
        traffic.go_on()
        # Either replica may answer.
        assert {client.generate("visitor", 1, seed=1).items[0].image for _ in range(6)} == {five.image}
    assert traffic.errors == []
    assert service.replicas() == before
    assert_every_like_is_learnt(service, traffic)


def test_a_lost_machine_costs_retryable_errors_and_no_like(service: Service) -> None:
    with Traffic(service.address, "lost", 2) as traffic:
        traffic.go_on()
        for name in ("generator-1", "trainer-1"):
            service.cluster.nodes[name].kill()
        traffic.go_on()
        service.start("trainer-2", "trainer")
        until(lambda: set(service.trainers()) == {"trainer-2"})
    for error in traffic.errors:
        assert isinstance(error, GeneratorUnavailable), error
        assert may_retry(error) and error.retry_after
    assert_every_like_is_learnt(service, traffic)


def test_an_upgrade_moves_callers_to_the_second_cluster_and_no_call_fails(service: Service, tmp_path: Path) -> None:
    """As with KubeRay: a second Ray cluster comes up beside the first, and the Service names its generators instead."""
    first, moved = service.release.port, {"config": {"generator": {"steps": 2}}, "trainer": {"stopped": True}}
    # A new connection to the engine every second; an operator's gateways take up to a minute.
    often = {**service.environment, "PAPA_GATEWAY__ENGINE_CHANNEL_AGE": "1"}
    with (
        second_cluster(merged(VALUES, moved), service.environment, tmp_path / "second.log") as second,
        named(first) as (name, engine),
        gateway({**often, "PAPA_GATEWAY__GENERATOR": engine}, tmp_path) as address,
        Client(address) as client,
        Traffic(address, "upgrade", 2) as traffic,
    ):
        (before,) = client.generate("visitor", 1, seed=1).items
        traffic.go_on()
        name.port = second
        until(lambda: name.open(second) > 0 and name.open(first) == 0)
        traffic.go_on()
        (after,) = client.generate("visitor", 1, seed=1).items
        assert before.image != after.image, "the second cluster draws with settings of its own"
        # And back again, as a rollback does.
        name.port = first
        until(lambda: name.open(first) > 0 and name.open(second) == 0)
        traffic.go_on()
    assert traffic.errors == []
    assert_every_like_is_learnt(service, traffic)
