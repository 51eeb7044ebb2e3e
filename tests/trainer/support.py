"""A trainer's surroundings, an updater that only counts, and shorthands that tests read by."""

import asyncio
import hashlib
import json
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papa_serving.contracts.errors import RevisionDamaged, RevisionNotFound
from papa_serving.contracts.feedback import DeadLetter, FeedbackEvent, FeedbackLog, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory
from papa_serving.feedback import open_log
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings, TrainerSettings
from papa_serving.store import open_revisions, open_users
from papa_serving.trainer.loop import TrainerLoop
from papa_serving.trainer.updater import Refused, Trained, Updater, UserUpdate, Weights, update_seed

MANIFEST = "manifest.json"


class TallyUpdater(Updater):
    """`learned` in a manifest lists all events behind the weights, oldest first; `events` those of this update.

    `during` is called in the worker thread with each joint update before it is computed, and may block, raise or kill.
    `refuse` says why an update should not pass the gate.
    """

    backbone_hash = "tally"
    files = (MANIFEST,)

    def __init__(
        self,
        during: Callable[[Sequence[UserUpdate]], None] = lambda updates: None,
        refuse: Callable[[UserUpdate, float], str] = lambda update, step_scale: "",
    ) -> None:
        self.during = during
        self.refuse = refuse
        self.updates: list[tuple[tuple[UserUpdate, ...], float]] = []

    def flaw(self, event: LoggedEvent) -> str:
        return "no picture" if event.sample == b"flawed" else ""

    def verify(self, weights: Weights) -> None:
        if hashlib.sha256(weights.files[MANIFEST]).hexdigest() != weights.sha256:
            raise RevisionDamaged("checksum")

    def update(self, updates: Sequence[UserUpdate], step_scale: float) -> list[Trained | Refused]:
        self.updates.append((tuple(updates), step_scale))
        self.during(updates)
        return [self._one(update, step_scale) for update in updates]

    def _one(self, update: UserUpdate, step_scale: float) -> Trained | Refused:
        if reason := self.refuse(update, step_scale):
            return Refused("test", reason)
        events = [event.event_id for event in update.batch.events]
        content = {
            "parent": update.parent,
            "events": events,
            "learned": learned(update.start.files) + events,
            "seed": update_seed(self.backbone_hash, update),
            "step_scale": step_scale,
        }
        manifest = json.dumps(content).encode()
        return Trained({MANIFEST: manifest}, hashlib.sha256(manifest).hexdigest())


def learned(files: Mapping[str, bytes]) -> list[str]:
    """The events that these weights are made of."""
    return list(json.loads(files[MANIFEST])["learned"]) if files else []


PARTITIONS = 4
PATIENCE = 60.0


@dataclass
class World:
    settings: Settings
    log: FeedbackLog
    users: UserDirectory
    revisions: RevisionStore

    async def say(self, user: UserKey, *event_ids: str, grade: float = 1.0, sample: bytes = b"picture") -> None:
        """Feedback of a user, accepted."""
        events = [FeedbackEvent(event_id, user, grade, image=sample) for event_id in event_ids]
        results = await self.log.append(events)
        assert [result.error for result in results] == [None] * len(events)

    async def lineage(self, user: UserKey) -> list[Revision]:
        """Oldest first."""
        return (await self.users.lineage(user, 10_000))[::-1]

    async def manifest(self, user: UserKey, revision: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(await self.revisions.get(user, revision, MANIFEST))
        return content

    async def applied(self, user: UserKey) -> list[list[str]]:
        """The event ids that each revision of the lineage applied, oldest first."""
        return [(await self.manifest(user, one.name))["events"] for one in await self.lineage(user)]

    async def has_revisions(self, user: UserKey, count: int) -> bool:
        return len(await self.lineage(user)) == count

    async def nothing_pending(self, *users: UserKey) -> bool:
        """Whether everything that they said is applied or dead."""
        return all([(await self.users.get(user)).pending == 0 for user in users])

    async def dead_letters(self, user: UserKey) -> list[DeadLetter]:
        letters = await self.log.dead_letters(user.partition(PARTITIONS))
        return [letter for letter in letters if letter.event.user == user]

    async def assert_chain(self, user: UserKey) -> None:
        """Every revision's parent is the one before it, and its files are there."""
        lineage = await self.lineage(user)
        assert [one.parent for one in lineage] == ["", *(one.name for one in lineage[:-1])]
        for one in lineage:
            assert (await self.manifest(user, one.name))["parent"] == one.parent

    async def holds_files(self, user: UserKey, revision: str) -> bool:
        try:
            await self.revisions.get(user, revision, MANIFEST)
        except RevisionNotFound:
            return False
        return True

    @asynccontextmanager
    async def trainer(self, updater: Updater, member: str = "trainer", **changes: Any) -> AsyncIterator[TrainerLoop]:
        """A loop that runs within the block."""
        settings = self.settings.trainer.model_copy(update=changes)
        loop = TrainerLoop(member, self.log, self.users, self.revisions, updater, settings)
        running = asyncio.create_task(loop.run())
        try:
            yield loop
        finally:
            loop.stop()
            await running


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that must come to pass."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - it may lie in another process
            await asyncio.sleep(0.02)


def event_ids(count: int, start: int = 1) -> Sequence[str]:
    return [f"e{number}" for number in range(start, start + count)]


def quick_settings(url: str, data_dir: Path) -> Settings:
    """An empty Redis of its own (by prefix), updates after three labels or 0.2 s, leases of a second."""
    return Settings(
        data_dir=data_dir,
        redis=RedisSettings(url=url, prefix=f"t{secrets.token_hex(6)}"),
        feedback=FeedbackSettings(partitions=PARTITIONS),
        trainer=TrainerSettings(min_labels=3, max_wait=0.2, lease=1.0, poll=0.02),
    )


def open_world(settings: Settings) -> World:
    return World(settings, open_log(settings), open_users(settings), open_revisions(settings))


async def close_world(world: World) -> None:
    await world.log.close()
    await world.users.close()


class Pause:
    """Holds the first update in the worker thread until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, updates: Sequence[UserUpdate]) -> None:
        self.reached.set()
        assert self.go_on.wait(PATIENCE)

    async def is_reached(self) -> bool:
        return self.reached.is_set()
