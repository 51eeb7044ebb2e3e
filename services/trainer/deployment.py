"""The trainers on Ray Serve: one small replica that keeps the configured number of trainer actors alive."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from services import logs
from services.serve_settings import absolute, metrics_environment, settings_of_environment, without_secrets
from services.settings import Settings
from services.trainer.actor import NAMESPACE, STOP_SECONDS, TrainerActor, configuration, trainer_actor

_log = logging.getLogger(__name__)

SUPERVISOR_CPUS = 0.1
HEALTH_SECONDS = 2.0
START_SECONDS = 300.0
ANSWER_SECONDS = 30.0
PREFIX = "papa-trainer-"


class Trainers:
    """Keeps the actors. They are detached: when this replica is lost they go on, and the next replica finds them."""

    # Serve awaits an asynchronous __init__.
    async def __init__(self, settings: Settings, environment: dict[str, str]) -> None:  # type: ignore[misc]
        logs.configure(settings.log)
        self._settings = settings
        self._environment = environment
        self._configuration = configuration(settings)
        await self._stop_surplus()
        await asyncio.gather(*(self._start(name) for name in self._names()))
        _log.info("the trainers are ready", extra={"actors": settings.trainer.actors})

    async def check_health(self) -> None:
        """Called by Serve every HEALTH_SECONDS.

        Ray restarts an actor whose process dies; here one is made anew that Ray gave up or that somebody removed. The
        actors' backlogs arrive here, which is where their number would be decided.
        """
        healths = (_health(self._actor(name), ANSWER_SECONDS) for name in self._names())
        for name, health in zip(self._names(), await asyncio.gather(*healths, return_exceptions=True), strict=True):
            if isinstance(health, BaseException):
                _log.warning("a trainer does not answer", extra={"actor": name, "why": repr(health)})

    async def __del__(self) -> None:
        # Only those of this configuration: during a rolling update the next replica has made its own already.
        if hasattr(self, "_configuration"):
            stops = (_stop(name, self._configuration) for name in self._names())
            await asyncio.gather(*stops, return_exceptions=True)

    def _names(self) -> list[str]:
        return [f"{PREFIX}{number}" for number in range(self._settings.trainer.actors)]

    def _actor(self, name: str) -> ActorHandle[TrainerActor]:
        return trainer_actor(self._settings, name, self._environment)

    async def _start(self, name: str) -> None:
        """Makes the actor, or takes it over, or replaces it when it runs with other settings. Raises RayActorError with
        the cause when it cannot start."""
        health = await _health(self._actor(name), START_SECONDS)
        if health["configuration"] != self._configuration:
            await _stop(name)
            await _health(self._actor(name), START_SECONDS)

    async def _stop_surplus(self) -> None:
        """Actors of an earlier deployment that had more of them."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        ours = {entry["name"] for entry in actors if entry["namespace"] == NAMESPACE}
        surplus = {name for name in ours if name.startswith(PREFIX)} - set(self._names())
        await asyncio.gather(*(_stop(name) for name in surplus))


async def _health(actor: ActorHandle[TrainerActor], seconds: float) -> dict[str, Any]:
    return await asyncio.wait_for(actor.health.remote(), seconds)


async def _stop(name: str, configuration: str = "") -> None:
    """Lets the actor end its work, then removes it for good; one of another configuration than the given stays."""
    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return
    try:
        if not await asyncio.wait_for(actor.stop.remote(configuration), STOP_SECONDS + 3):
            return
    except (TimeoutError, RayActorError, RayTaskError) as error:
        _log.warning("a trainer did not stop gracefully", extra={"actor": name, "why": repr(error)})
    ray.kill(actor, no_restart=True)


def app(args: dict[str, object]) -> serve.Application:
    """The Serve application; its configuration is the environment's (PAPA_*), so `args` must be empty."""
    return application(settings_of_environment("trainer", args))


def application(settings: Settings) -> serve.Application:
    """The Serve application of these settings."""
    settings = without_secrets(absolute(settings))
    environment = metrics_environment(settings)
    deployment = serve.deployment(
        name="trainers",
        num_replicas=1,
        max_constructor_retry_count=3,
        graceful_shutdown_timeout_s=STOP_SECONDS + 10,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=ANSWER_SECONDS + 10,
        ray_actor_options={"num_cpus": SUPERVISOR_CPUS, "runtime_env": {"env_vars": environment}},
    )
    return deployment(Trainers).bind(settings, environment)
