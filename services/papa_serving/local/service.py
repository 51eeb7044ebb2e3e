"""The whole service on this machine: started in order, ended in reverse order."""

from __future__ import annotations

import os
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from papa_serving.client import Client
from papa_serving.local.backbone_check import check_store, find_backbone, inspect_hub
from papa_serving.local.child_processes import SupervisedProcess, python_module
from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.placement import (
    check_combination,
    exposed_ports,
    fresh_metrics_folder,
    updated,
    with_places,
    with_ports,
)
from papa_serving.local.ports import check_generator, reachable
from papa_serving.local.ray_cluster import existing_ray, local_ray
from papa_serving.local.redis_check import check_redis
from papa_serving.local.redis_process import RedisProcess, RedisProcessError
from papa_serving.local.serve_applications import (
    APPLICATIONS,
    ENGINE,
    ENGINE_FOR_LOOPBACK,
    running_applications,
    start_serve,
)
from papa_serving.local.startup_steps import StartupSteps
from papa_serving.local.stop_signals import Stopped, StopSignals
from papa_serving.settings import Settings
from papa_serving.settings.secret_urls import shown
from papa_serving.settings.variables import in_environment, settings_environment

_GATEWAY_SECONDS = 60.0
_PLAYGROUND_SECONDS = 30.0
_LOOK_SECONDS = 0.2
REDIS_DEATHS, REDIS_DEATHS_WITHIN = 5, 300.0
"""After this many deaths within this many seconds Redis is not restarted: something else is wrong."""

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Servers on this machine are reached directly, whatever http_proxy says."""


@dataclass(frozen=True)
class RunningService:
    """The running service: the `address` of the gateway, and where metrics, data and logs are.

    `playground` is the address of the page, "" where there is none; `exposed` tells of ports that strangers can use.
    """

    address: str
    playground: str
    metrics: str
    data_dir: Path
    logs: Path
    redis: RedisProcess | None
    exposed: Sequence[str]
    asked_to_stop: Callable[[], bool] = lambda: False

    def wait(self, say: Callable[[str], None]) -> None:
        """Waits for ever. Restarts a Redis that has died, on the same data, and reports it to `say`.

        Raises Stopped when it is asked to stop, and Failure when Redis dies too often or cannot start.
        """
        deaths: deque[float] = deque(maxlen=REDIS_DEATHS)
        while True:
            time.sleep(_LOOK_SECONDS)
            if self.asked_to_stop():
                raise Stopped
            if self.redis is not None and not self.redis.running:
                self._revive(self.redis, deaths, say)

    def _revive(self, redis: RedisProcess, deaths: deque[float], say: Callable[[str], None]) -> None:
        hint = f"see {self.data_dir}/redis/redis.log, then start again"
        if len(deaths) == REDIS_DEATHS and time.monotonic() - deaths[0] < REDIS_DEATHS_WITHIN:
            why = f"the embedded Redis has died {REDIS_DEATHS + 1} times within {REDIS_DEATHS_WITHIN:.0f} seconds"
            raise Failure(why, hint)
        deaths.append(time.monotonic())
        code = redis.exit_code
        try:
            redis.revive()
        except RedisProcessError as error:
            raise Failure(
                f"the embedded Redis has died (exit code {code}) and does not start: {error}", hint
            ) from error
        say(f"the embedded Redis has died (exit code {code}) and was started again on the same data")


@contextmanager
def foreground_service(
    settings: Settings, steps: StartupSteps, applications: Mapping[str, str] = APPLICATIONS
) -> Iterator[RunningService]:
    """Starts everything that `settings` do not name as existing, and stops it at the end.

    Ctrl-C, SIGTERM or a hang-up raise Stopped inside; a second one ends everything at once. Only this user can read the
    files that the service writes. Raises Failure, in one line, when something cannot start.
    """
    os.umask(0o077)
    settings = with_places(settings)
    check_combination(settings)
    with StopSignals() as signals, InstanceLock(settings.data_dir), ExitStack() as held:
        settings = with_ports(settings, held)
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
    if not settings.ray.address and find_backbone(settings.backbone) is None:
        with steps.step("backbone") as step:
            step.result = f"{settings.backbone}, a {inspect_hub(settings.backbone)}"
    with steps.step("redis") as step:
        settings, redis = _redis(stack, settings)
        facts = check_redis(settings.redis)
        check_store(settings, embedded=redis is not None)
        step.result = f"{facts.version}, {'embedded' if redis else shown(settings.redis.url)}"
    metrics = fresh_metrics_folder(settings)
    # The applications read these settings. The metrics folder is not set: Ray's own processes would use it.
    stack.enter_context(in_environment(settings_environment(settings)))
    with steps.step("ray") as step:
        stack.enter_context(existing_ray(settings) if settings.ray.address else local_ray(settings))
        signals.install()
        # The head of an existing cluster is usually another machine.
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
    return RunningService(
        address, playground, scraped_at, settings.data_dir, logs, redis, exposed_ports(settings), lambda: signals.asked
    )


def _redis(stack: ExitStack, settings: Settings) -> tuple[Settings, RedisProcess | None]:
    """Starts the embedded server if no other is configured, and sets its URL in the settings."""
    if settings.redis.url:
        return settings, None
    try:
        redis = stack.enter_context(RedisProcess(settings.data_dir / "redis", appendfsync=settings.redis.appendfsync))
    except RedisProcessError as error:
        raise Failure(str(error)) from error
    return updated(settings, redis={"url": redis.url}), redis


def _gateway(stack: ExitStack, environment: Mapping[str, str], address: str, log: Path) -> None:
    """Starts the gateway and waits until it says that it serves."""
    gateway = stack.enter_context(SupervisedProcess(python_module("papa_serving.gateway"), environment, log))
    deadline = time.monotonic() + _GATEWAY_SECONDS
    with Client(address) as client:
        while not client.is_serving(timeout=1.0):
            if gateway.restarts or time.monotonic() > deadline:
                raise Failure("the gateway does not start", f"see {log}")
            time.sleep(0.1)


def _playground(stack: ExitStack, address: str, log: Path) -> None:
    """Starts the web page and waits until it answers."""
    command = python_module("papa_serving.cli.main", "playground")
    page = stack.enter_context(SupervisedProcess(command, os.environ, log))
    deadline = time.monotonic() + _PLAYGROUND_SECONDS
    while not _answers(address):
        if page.restarts or time.monotonic() > deadline:
            raise Failure("the playground does not start", f"see {log}; --no-playground goes without it")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        with _NO_PROXY.open(address, timeout=1.0):
            return True
    except OSError:
        return False
