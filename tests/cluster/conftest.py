"""The service on a Ray cluster of several nodes, as the chart lays it out: all of it real."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from papa_serving.client import Client
from papa_serving.local.redis_process import RedisProcess
from ray import serve

from tests.cluster.nodes import ROOT, Cluster, Node, ray_cluster
from tests.cluster.release import Release
from tests.gateway.support.changing_name import ChangingName
from tests.papa.support import save_tiny_backbone
from tests.ports import free_port

VALUES = {
    "ray": {"autoscaler": {"enabled": True}},
    "generator": {
        "threads": 1,
        "autoscaling": {"minReplicas": 1, "maxReplicas": 2, "targetOngoingRequests": 2, "upscaleDelaySeconds": 1},
    },
    "trainer": {"autoscaling": {"minActors": 1, "maxActors": 1}},
    "config": {
        "generator": {"sampler": "ddim", "steps": 3},
        # Quick updates that always pass the gate: what is looked at here is where things run.
        "trainer": {"min_labels": 4, "max_wait": 0.5, "lease": 3.0, "gate": {"probe_samples": 0}},
        "feedback": {"partitions": 16},
        "log": {"level": "info"},
    },
}


@dataclass(frozen=True)
class Service:
    """A running service: its address and its parts."""

    cluster: Cluster
    release: Release
    address: str
    folder: Path
    """In place of the pods' volumes."""
    environment: Mapping[str, str]

    def start(self, name: str, group: str) -> Node:
        """One more pod of that group."""
        return self.cluster.start(name, self.release.groups()[group]["rayStartParams"])

    def replicas(self) -> dict[str, set[int]]:
        """Process ids of generator replicas by node, where there are any."""
        return self._processes("ServeReplica:generator")

    def trainers(self) -> dict[str, set[int]]:
        """The same of trainer actors."""
        return self._processes("TrainerActor")

    def _processes(self, title: str) -> dict[str, set[int]]:
        found = {name: node.processes(title) for name, node in self.cluster.nodes.items() if node.alive}
        return {name: pids for name, pids in found.items() if pids}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One pod of each group. The tests build on one another."""
    folder = tmp_path_factory.mktemp("cluster")
    release = Release(VALUES, folder)
    with RedisProcess(folder / "redis", port=0) as redis:
        local = {
            "PAPA_DATA_DIR": str(folder),
            "PAPA_STORE__PATH": str(folder / "revisions"),
            "PAPA_BACKBONE": str(save_tiny_backbone(folder / "backbone")),
            "PAPA_REDIS__URL": redis.url,
            "PAPA_GATEWAY__GENERATOR": f"127.0.0.1:{release.port}",
            "PAPA_GENERATOR__INSECURE": "true",
            "PAPA_GATEWAY__HOST": "127.0.0.1",
            "PAPA_GATEWAY__PORT": "0",
            "PAPA_METRICS__PORT": "0",
        }
        environment = {**os.environ, **release.settings(), **local}
        with ray_cluster(folder, environment, free_port()) as cluster:
            groups = release.groups()
            cluster.start_all({f"{name}-1": groups[name]["rayStartParams"] for name in ("generator", "trainer")})
            release.deploy()
            with gateway(environment, folder) as address:
                yield Service(cluster, release, address, folder, environment)
            serve.shutdown()


@contextmanager
def named(port: int) -> Iterator[tuple[ChangingName, str]]:
    """A name for the engine's port, and its address."""
    loop, name = asyncio.new_event_loop(), ChangingName(port)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    address = asyncio.run_coroutine_threadsafe(name.__aenter__(), loop).result()
    try:
        yield name, address
    finally:
        asyncio.run_coroutine_threadsafe(name.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def gateway(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """A gateway of its own process: its address, once a generation has come through."""
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "papa_serving.gateway"],
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        address = str(json.loads(process.stdout.readline())["grpc"])
        with Client(address) as client:
            client.generate("warm", 1)
        yield address
    finally:
        process.kill()
        process.communicate()
