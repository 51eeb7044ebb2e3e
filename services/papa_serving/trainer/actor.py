"""One trainer as a Ray actor: it starts by itself, and after a crash Ray starts it again."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from typing import Any, cast

import ray
from ray.actor import ActorHandle

from papa_serving.settings import Settings

CPUS = 0.5
"""What an actor reserves of Ray's count; its torch threads are set by trainer.threads, not by Ray."""

THREADS = 2
"""So that it answers for its health while it stops."""

NAMESPACE = "papa"
ENDLESS = -1
STOP_SECONDS = 8.0
"""A stop takes at most the grace for the running update and the time to give the leases back, and a moment for the last
traces."""


class TrainerActor:
    """Begins work when it is made, so that nobody has to tell a restarted one. Raises what a bad backbone raises."""

    def __init__(self, settings: Settings, name: str) -> None:
        # Only here: torch and the metrics' folder belong to the actor's process, not to whoever deploys it.
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
        """Ends the loop gracefully, then waits to be killed. False, and nothing happens, when `of` names another
        configuration than the one that it runs with."""
        if of not in ("", self._configuration):
            return False
        from papa_serving import tracing

        self._trainer.stop(STOP_SECONDS)
        tracing.end()
        return True


def configuration(settings: Settings) -> str:
    """Tells settings apart without telling what they are."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]


def trainer_actor(settings: Settings, name: str, environment: dict[str, str]) -> ActorHandle[TrainerActor]:
    """The actor of that name, made if it is not there. It outlives whoever made it (detached)."""
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
