"""One trainer as a Ray actor. It begins work when it is created, and Ray restarts it after a crash."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from typing import Any, cast

import ray
from ray.actor import ActorHandle

from papa_serving.settings import Settings

CPUS = 0.5
"""The CPUs that an actor reserves in Ray. trainer.threads sets its torch threads."""

THREADS = 2
"""The actor's concurrency: it must report its health while it stops."""

NAMESPACE = "papa"
ENDLESS = -1
STOP_SECONDS = 8.0
"""The most seconds that a stop takes: grace for the running update, return of the leases, the last traces."""


class TrainerActor:
    """Begins work when it is created, so that a restarted actor needs no call. Raises the errors of a bad backbone."""

    def __init__(self, settings: Settings, name: str) -> None:
        # Imported here because torch and the metrics' folder belong to the actor's process, not to the deployer's.
        from papa_serving import logs, tracing
        from papa_serving.settings.workers import with_secrets
        from papa_serving.trainer.papa_updater import load_updater
        from papa_serving.trainer.process import TrainerThread, check_backbone

        logs.configure(settings.log)
        self._configuration = configuration(settings)
        settings = with_secrets(settings)
        tracing.begin(settings.tracing, "papa-trainer")
        updater = load_updater(settings)
        asyncio.run(check_backbone(settings, updater.backbone_hash))
        self._trainer = TrainerThread(settings, name, updater)

    def health(self) -> dict[str, Any]:
        """Its `configuration`, `serving` (false from the beginning of a stop) and the fields of Backlog.

        An answer proves that the loop runs: the process ends with it.
        """
        state = {"configuration": self._configuration, "serving": self._trainer.serving}
        return {**state, **asdict(self._trainer.backlog)}

    def stop(self, of: str = "") -> bool:
        """Ends the loop gracefully, then waits to be killed.

        Returns False and does nothing when `of` is not the configuration that it runs with.
        """
        if of not in ("", self._configuration):
            return False
        from papa_serving import tracing

        self._trainer.stop(STOP_SECONDS)
        tracing.end()
        return True


def configuration(settings: Settings) -> str:
    """A digest that identifies settings without revealing them."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]


def trainer_actor(settings: Settings, name: str, environment: dict[str, str]) -> ActorHandle[TrainerActor]:
    """Returns the actor of that name and creates it if needed. It is detached: it outlives its creator."""
    remote = ray.remote(TrainerActor).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=ENDLESS,
        max_concurrency=THREADS,
        num_cpus=CPUS,
        num_gpus=1 if settings.trainer.device.startswith("cuda") else 0,
        runtime_env={"env_vars": environment},
    )
    return cast("ActorHandle[TrainerActor]", remote.remote(settings, name))
