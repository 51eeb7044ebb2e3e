"""The whole service on this machine: started in order, ended in reverse order."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from papa_serving.client import Client
from papa_serving.local.environment import in_environment, settings_environment
from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.placement import (
    check_combination,
    fresh_metrics_folder,
    updated,
    with_places,
    with_ports,
)
from papa_serving.local.ports import check_generator, reachable
from papa_serving.local.ray_cluster import existing_ray, local_ray
from papa_serving.local.redis_binary import RedisProcessError
from papa_serving.local.redis_check import check_redis
from papa_serving.local.redis_process import RedisProcess
from papa_serving.local.serve_applications import (
    APPLICATIONS,
    ENGINE,
    ENGINE_FOR_LOOPBACK,
    running_applications,
    start_serve,
)
from papa_serving.local.startup_steps import StartupSteps
from papa_serving.local.stop_signals import StopSignals
from papa_serving.local.supervised_process import SupervisedProcess
from papa_serving.settings import Settings
from papa_serving.settings.secret_urls import shown

_GATEWAY_SECONDS = 60.0
_PLAYGROUND_SECONDS = 30.0


@dataclass(frozen=True)
class RunningService:
    """What a person needs to know: `address` of the gateway, where metrics, data and logs are.

    `playground` is the address of the page, "" where there is none.
    """

    address: str
    playground: str
    metrics: str
    data_dir: Path
    logs: Path
    redis: RedisProcess | None

    def wait(self) -> None:
        """For ever; raises Failure when something has ended that is not started again."""
        while self.redis is None or self.redis.running:
            time.sleep(0.5)
        raise Failure("the embedded Redis has ended", f"see {self.data_dir}/redis/redis.log, then start again")


@contextmanager
def foreground_service(
    settings: Settings, steps: StartupSteps, applications: Mapping[str, str] = APPLICATIONS
) -> Iterator[RunningService]:
    """Runs what `settings` do not name as existing; afterwards nothing that was started here is left.

    Ctrl-C or SIGTERM raise Stopped inside; a second one ends everything at once. Raises Failure, in one line, where
    something cannot start.
    """
    settings = with_places(settings)
    check_combination(settings)
    with StopSignals() as signals, InstanceLock(settings.data_dir):
        settings = with_ports(settings)
        stack = ExitStack()
        try:
            yield _start(stack, settings, steps, applications, signals)
        finally:
            signals.begin_end()
            with steps.step("stop"):
                stack.close()


def _start(
    stack: ExitStack, settings: Settings, steps: StartupSteps, applications: Mapping[str, str], signals: StopSignals
) -> RunningService:
    with steps.step("redis") as step:
        settings, redis = _redis(stack, settings)
        facts = check_redis(settings.redis)
        step.result = f"{facts.version}, {'embedded' if redis else shown(settings.redis.url)}"
    metrics = fresh_metrics_folder(settings)
    # The applications read their settings from here; the metrics folder is not set, Ray's own processes would use it.
    stack.enter_context(in_environment(settings_environment(settings)))
    with steps.step("ray") as step:
        stack.enter_context(existing_ray(settings) if settings.ray.address else local_ray(settings))
        signals.install()
        # The head of an existing cluster is another machine, as a rule.
        start_serve(settings.ray.serve_grpc_port, ENGINE if settings.ray.address else ENGINE_FOR_LOOPBACK)
        step.result = settings.ray.address or "local"
    stack.enter_context(running_applications(steps, applications))
    check_generator(settings.gateway.generator)
    address = reachable(settings.gateway.host, settings.gateway.port)
    logs = settings.data_dir / "logs"
    probed = reachable(settings.gateway.host, settings.gateway.health_port or settings.gateway.port)
    with steps.step("gateway") as step:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        _gateway(stack, environment, probed, logs / "gateway.log")
        step.result = address
    playground = ""
    if settings.playground.enabled:
        with steps.step("playground") as step:
            playground = f"http://{reachable(settings.playground.host, settings.playground.port)}"
            _playground(stack, playground, logs / "playground.log")
            step.result = playground
    scraped_at = f"http://{reachable(settings.metrics.host, settings.metrics.port)}/metrics"
    return RunningService(address, playground, scraped_at, settings.data_dir, logs, redis)


def _redis(stack: ExitStack, settings: Settings) -> tuple[Settings, RedisProcess | None]:
    """Starts the embedded server where no other is named, and enters its URL into the settings."""
    if settings.redis.url:
        return settings, None
    try:
        redis = stack.enter_context(RedisProcess(settings.data_dir / "redis", appendfsync=settings.redis.appendfsync))
    except RedisProcessError as error:
        raise Failure(str(error)) from error
    return updated(settings, redis={"url": redis.url}), redis


def _gateway(stack: ExitStack, environment: Mapping[str, str], address: str, log: Path) -> None:
    """Starts the gateway and waits until it says that it serves."""
    command = [sys.executable, "-m", "papa_serving.gateway"]
    gateway = stack.enter_context(SupervisedProcess(command, environment, log))
    deadline = time.monotonic() + _GATEWAY_SECONDS
    with Client(address) as client:
        while not client.is_serving(timeout=1.0):
            if gateway.restarts or time.monotonic() > deadline:
                raise Failure("the gateway does not start", f"see {log}")
            time.sleep(0.1)


def _playground(stack: ExitStack, address: str, log: Path) -> None:
    """Starts the web page and waits until it answers."""
    page = stack.enter_context(
        SupervisedProcess([sys.executable, "-m", "papa_serving.cli.main", "playground"], os.environ, log)
    )
    deadline = time.monotonic() + _PLAYGROUND_SECONDS
    while not _answers(address):
        if page.restarts or time.monotonic() > deadline:
            raise Failure("the playground does not start", f"see {log}; --no-playground goes without it")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        # An http address of our own, on this machine: never through a proxy.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=1.0):
            return True
    except OSError:
        return False
