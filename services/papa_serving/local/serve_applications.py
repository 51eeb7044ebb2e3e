"""The Ray Serve applications: generator (behind Serve's gRPC proxy) and trainer."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from papa_serving.local.failure import Failure
from papa_serving.local.startup_steps import StartupSteps

if TYPE_CHECKING:
    from ray.serve import Application

APPLICATIONS: Mapping[str, str] = {
    "generator": "papa_serving.generator.deployment:app",
    "trainer": "papa_serving.trainer.deployment:app",
}
ENGINE = "papa_serving.stubs.engine.v1.engine_pb2_grpc.add_EngineServiceServicer_to_server"
ENGINE_FOR_LOOPBACK = "papa_serving.local.serve_loopback.add_engine_for_loopback"
_POLL_SECONDS = 0.2


def start_serve(grpc_port: int, servicer: str) -> None:
    """Starts Serve's controller and one proxy, with ENGINE or ENGINE_FOR_LOOPBACK as its service.

    If Serve already runs on the cluster, its own options stay.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        # Nothing is served over HTTP, but Serve has no proxy without it.
        http_options={"host": "127.0.0.1", "port": 0},
        grpc_options={"port": grpc_port, "grpc_servicer_functions": [servicer], "enable_reflection": False},
    )


@contextmanager
def running_applications(steps: StartupSteps, applications: Mapping[str, str] = APPLICATIONS) -> Iterator[None]:
    """Deploys all applications at once and waits for each. Drains and removes them at the end."""
    from ray import serve
    from ray.serve import RunTarget

    targets = [RunTarget(_build(path), name=name, route_prefix=f"/{name}") for name, path in applications.items()]
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    try:
        for name in applications:
            with steps.step(name):
                _wait_until_running(name)
        yield
    finally:
        _remove(applications)


def _remove(names: Iterable[str]) -> None:
    """Removes all applications at once, because each takes a while to drain."""
    from ray import serve

    for name in names:
        serve.delete(name, _blocking=False)
    while set(names) & set(serve.status().applications):
        time.sleep(_POLL_SECONDS)


def _build(path: str) -> Application:
    module, _, function = path.partition(":")
    application: Application = getattr(importlib.import_module(module), function)({})
    return application


def _wait_until_running(name: str) -> None:
    """Raises Failure with the application's own message when it cannot start."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    while True:
        application = serve.status().applications.get(name)
        if application is None or application.status in (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING):
            time.sleep(_POLL_SECONDS)
        elif application.status is ApplicationStatus.RUNNING:
            return
        else:
            messages = [application.message, *(each.message for each in application.deployments.values())]
            raise Failure(
                f"the {name} does not start: {_last_line(messages)}", "its logs lie in the data folder's logs/ray/serve"
            )


def _last_line(messages: list[str]) -> str:
    """The last line of a traceback, which names the cause."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    causes = [line for line in lines if any(sign in line for sign in ("Error", "Exception", "Refused"))]
    return (causes or lines or ["no reason given"])[-1]
