"""The trainers on Ray Serve: one small replica that keeps as many trainer actors alive as the backlog needs."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from ray import serve

from papa_serving import logs, metrics
from papa_serving.settings import Settings, TrainerAutoscalingSettings
from papa_serving.settings.workers import absolute, metrics_environment, settings_of_environment, without_secrets
from papa_serving.trainer.actor import STOP_SECONDS
from papa_serving.trainer.ray_pool import ANSWER_SECONDS, Answer, Pool
from papa_serving.trainer.scaling import Load, Scaling, decide, limits

_log = logging.getLogger(__name__)

SUPERVISOR_CPUS = 0.1
LOOK_SECONDS = 2.0
LIVE = ("target_age", "upscale_delay", "downscale_delay")
"""Settings of trainer.autoscaling that may be changed while trainers run, as Serve's user_config."""


class Trainers:
    """Keeps as many actors as the backlog needs. They outlive this replica, and the next replica finds them."""

    # Serve awaits an asynchronous __init__.
    async def __init__(self, settings: Settings, environment: dict[str, str]) -> None:  # type: ignore[misc]
        logs.configure(settings.log)
        self._settings, self._limits = settings, limits(settings)
        self._pool = Pool(settings, environment)
        self._scaling = Scaling(await self._pool.take_over(self._limits.least, self._limits.most))
        self._watch = asyncio.create_task(self._watch_actors())
        _log.info("the trainers are ready", extra={"actors": self._scaling.desired})

    def reconfigure(self, changes: dict[str, object]) -> None:
        """Applies Serve's user_config to the LIVE settings. Others keep their configured values."""
        self._limits = limits(reconfigured(self._settings, changes))

    def check_health(self) -> None:
        """Raises when the supervision of the actors has ended. Serve then replaces this replica; the actors stay."""
        if self._watch.done():
            raise RuntimeError("the trainers are not supervised any more") from self._watch.exception()

    async def __del__(self) -> None:
        if watch := getattr(self, "_watch", None):
            watch.cancel()
        if pool := getattr(self, "_pool", None):
            await pool.close()

    async def _watch_actors(self) -> None:
        while True:
            answers = await self._pool.look()
            await self._scale(answers)
            metrics.TRAINERS_DESIRED.set(self._scaling.desired)
            metrics.TRAINERS_RUNNING.set(len(answers))
            await asyncio.sleep(LOOK_SECONDS)

    async def _scale(self, answers: dict[str, Answer]) -> None:
        before, load = self._scaling.desired, load_of(answers, self._scaling.desired)
        self._scaling = decide(self._scaling, load, monotonic(), self._limits)
        if self._scaling.desired != before:
            about = {"before": before, "now": self._scaling.desired, "oldest_age": load.oldest_age, "busy": load.busy}
            _log.info("the number of trainers changes", extra=about)
            await self._pool.resize(self._scaling.desired)


def reconfigured(settings: Settings, changes: dict[str, object]) -> Settings:
    """The settings with those of LIVE changed. Raises ValueError for others and for values that do not fit."""
    if strange := set(changes) - set(LIVE):
        raise ValueError(f"only {', '.join(LIVE)} can be changed while the trainers run, not {sorted(strange)}")
    scaling = TrainerAutoscalingSettings.model_validate(settings.trainer.autoscaling.model_dump() | changes)
    return settings.model_copy(update={"trainer": settings.trainer.model_copy(update={"autoscaling": scaling})})


def load_of(answers: dict[str, Answer], desired: int) -> Load:
    """Sums the answers of all trainers."""
    healths = [answer.health for answer in answers.values()]
    oldest = max((float(health["oldest_age"]) for health in healths), default=0.0)
    return Load(oldest, sum(float(health["busy"]) for health in healths), len(healths) == desired)


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
        health_check_period_s=5,
        health_check_timeout_s=ANSWER_SECONDS,
        ray_actor_options={"num_cpus": SUPERVISOR_CPUS, "runtime_env": {"env_vars": environment}},
    )
    return deployment(Trainers).bind(settings, environment)
