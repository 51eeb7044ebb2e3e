"""Creates, polls and stops the trainer actors of this Ray: papa-trainer-0, -1, …"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from papa_serving.settings import Settings
from papa_serving.trainer.actor import NAMESPACE, STOP_SECONDS, TrainerActor, configuration, trainer_actor

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
START_SECONDS = 300.0
ANSWER_SECONDS = 30.0
PREFIX = "papa-trainer-"
_TRIES = 3


@dataclass(frozen=True)
class Answer:
    """A trainer's last health answer, and when it came (monotonic)."""

    health: Mapping[str, Any]
    at: float


class Pool:
    """The actors by number. They are detached: they outlive this process, and the next one finds them."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._configuration = configuration(settings)
        self._handles: dict[str, ActorHandle[TrainerActor]] = {}
        self._asked: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        self._answers: dict[str, Answer] = {}

    async def take_over(self, least: int, most: int) -> int:
        """Creates the first `least` trainers and waits for them. Returns the number of running trainers.

        It also keeps trainers that an earlier process with the same settings has left, up to `most` in all, and stops
        all others.

        Raises RayActorError with the cause when one cannot start.
        """
        await asyncio.gather(*(self._start(name) for name in _names(0, least)))
        count = least
        while count < most and await self._is_ours(f"{PREFIX}{count}"):
            count += 1
        await self._stop_all(_existing() - set(_names(0, count)))
        return count

    async def resize(self, count: int) -> None:
        """Creates or drains trainers until there are `count`.

        A new trainer may still wait for a machine when this returns. A drained one has given its partitions back.
        """
        for name in set(_names(0, count)) - self._handles.keys():
            self._handles[name] = self._made(name)
        surplus = self._handles.keys() - set(_names(0, count))
        for name in surplus:
            self._forget(name)
        await self._stop_all(surplus)

    async def look(self) -> dict[str, Answer]:
        """The newest answers by name, none older than ANSWER_SECONDS.

        Ray restarts an actor whose process dies. This method recreates actors that Ray has given up or that were
        removed.
        """
        for name, handle in self._handles.items():
            if name not in self._asked:
                self._asked[name] = asyncio.create_task(_health(handle, ANSWER_SECONDS))
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=LOOK_SECONDS)
        for name in [name for name, asked in self._asked.items() if asked.done()]:
            self._hear(name, self._asked.pop(name))
        oldest = monotonic() - ANSWER_SECONDS
        self._answers = {name: answer for name, answer in self._answers.items() if answer.at >= oldest}
        return dict(self._answers)

    async def close(self) -> None:
        """Stops the actors of this configuration.

        During a rolling update the next process has already created its own, which stay.
        """
        names = set(self._handles)
        for name in names:
            self._forget(name)
        await asyncio.gather(*(_stop(name, self._configuration) for name in names), return_exceptions=True)

    def _hear(self, name: str, asked: asyncio.Task[Mapping[str, Any]]) -> None:
        error = asked.exception()
        if error is None:
            self._answers[name] = Answer(asked.result(), monotonic())
            return
        _log.warning("a trainer does not answer", extra={"actor": name, "why": repr(error)})
        if isinstance(error, RayActorError):
            self._handles[name] = self._made(name)

    def _forget(self, name: str) -> None:
        self._handles.pop(name, None)
        self._answers.pop(name, None)
        if asked := self._asked.pop(name, None):
            asked.cancel()

    def _made(self, name: str) -> ActorHandle[TrainerActor]:
        return trainer_actor(self._settings, name, self._environment)

    async def _start(self, name: str) -> None:
        """Creates the actor, takes it over, or replaces it when it runs with other settings."""
        for _ in range(_TRIES):
            self._handles[name] = self._made(name)
            health = await _health(self._handles[name], START_SECONDS)
            if health["configuration"] == self._configuration:
                return
            await _stop(name)
        raise RuntimeError(f"{name} keeps being made with other settings: is there a second deployment of trainers?")

    async def _is_ours(self, name: str) -> bool:
        """Whether the actor runs with these settings; a positive answer is cached."""
        try:
            handle = ray.get_actor(name, namespace=NAMESPACE)
            health = await _health(handle, ANSWER_SECONDS)
        except (ValueError, TimeoutError, RayActorError, RayTaskError):
            return False
        if health["configuration"] == self._configuration:
            self._handles[name] = handle
            return True
        return False

    async def _stop_all(self, names: Iterable[str]) -> None:
        await asyncio.gather(*(_stop(name) for name in names))


def _names(first: int, end: int) -> list[str]:
    return [f"{PREFIX}{number}" for number in range(first, end)]


def _existing() -> set[str]:
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"] for each in actors if each["namespace"] == NAMESPACE and each["name"].startswith(PREFIX)}


async def _health(actor: ActorHandle[TrainerActor], seconds: float) -> Mapping[str, Any]:
    return await asyncio.wait_for(actor.health.remote(), seconds)


async def _stop(name: str, configuration: str = "") -> None:
    """Lets the actor end its work and removes it. An actor of another configuration than the given one stays."""
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
