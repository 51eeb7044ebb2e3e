"""Several Ray nodes on one machine, each started as KubeRay starts a pod, and killed as a lost machine is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from papa_serving.local.child_processes import descendants
from papa_serving.local.parent_death import tied_to_parent

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
_STARTED, _TRIES = "Ray runtime started", 3
_QUICK = {
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    # Else a token in the home folder decides, and a driver does not look there.
    "RAY_AUTH_MODE": "disabled",
    # By default a lost node is noticed after some fifteen seconds.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}
_LOOPBACK = ("--node-ip-address", "127.0.0.1", "--object-store-memory", str(80 * 2**20))
_LEAN = ("--include-log-monitor", "false")
"""Its process copies lines of logs to drivers, and the driver here does not take them."""


class Node:
    """One `ray start`, with everything that it started."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        # Tied to this process, or a run that is killed at its time limit leaves its nodes behind.
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *_LOOPBACK, *_LEAN, *arguments]
        self._command = tied_to_parent(start)
        self._environment, self._log = {**environment, **_QUICK}, log
        self._begin()

    def wait_until_joined(self) -> None:
        """Starts it again where Ray gives up after half a minute: on a busy machine that is too soon."""
        for attempt in range(_TRIES):
            if attempt:
                self._begin()
            until(lambda: _STARTED in self.explain() or not self.alive)
            if self.alive:
                return
        raise AssertionError(self.explain())

    def _begin(self) -> None:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def processes(self, name: str) -> set[int]:
        """Ids of this node's workers whose title contains the name."""
        return {pid for pid in descendants(self._process.pid) if name in _title(pid)}

    def kill(self) -> None:
        """SIGKILL to the raylet, its agents and its workers, at once."""
        for pid in [*descendants(self._process.pid), self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def explain(self) -> str:
        return self._log.read_text(errors="replace")


def _title(pid: int) -> str:
    with suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


class Cluster:
    """A head and nodes by name."""

    def __init__(
        self, folder: Path, sockets: Path, environment: Mapping[str, str], port: int, places: Mapping[str, Any]
    ) -> None:
        self.address = f"127.0.0.1:{port}"
        self.nodes: dict[str, Node] = {}
        self._folder, self._environment = folder, environment
        head = ["--head", "--port", str(port), "--temp-dir", str(sockets), "--include-dashboard", "false"]
        self.start("head", places, head)

    def start(self, name: str, parameters: Mapping[str, Any], more: list[str] | None = None) -> Node:
        """`parameters` as in a group's rayStartParams, which KubeRay hands to a shell."""
        self._begin(name, parameters, more or ["--address", self.address])
        self.nodes[name].wait_until_joined()
        return self.nodes[name]

    def start_all(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        """The same of several at once, by name."""
        for name, parameters in nodes.items():
            self._begin(name, parameters, ["--address", self.address])
        for name in nodes:
            self.nodes[name].wait_until_joined()

    def _begin(self, name: str, parameters: Mapping[str, Any], more: list[str]) -> None:
        given = shlex.split(" ".join(f"--{key}={value}" for key, value in parameters.items()))
        self.nodes[name] = Node([*given, *more], self._environment, self._folder / f"{name}.log")


NOTHING_RUNS_HERE: Mapping[str, Any] = {"num-cpus": "0"}


@contextmanager
def ray_cluster(
    folder: Path, environment: Mapping[str, str], port: int, places: Mapping[str, Any] = NOTHING_RUNS_HERE
) -> Iterator[Cluster]:
    """A head alone, with these places for replicas and trainers, joined by this process.

    Whatever else joins it is killed in the end.
    """
    # Ray's sockets lie below its folder, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as sockets:
        cluster = Cluster(folder, Path(sockets), environment, port, places)
        try:
            ray.init(address=cluster.address, log_to_driver=False, namespace="test")
            yield cluster
        finally:
            ray.shutdown()
            for node in cluster.nodes.values():
                node.kill()


def until(condition: Any, seconds: float = PATIENCE) -> None:
    """Waits until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
