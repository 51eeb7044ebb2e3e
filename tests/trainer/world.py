"""A trainer's surroundings: the log, the users and the revisions, with shorthands that tests read by."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from papa_serving.contracts.errors import RevisionNotFound
from papa_serving.contracts.feedback import DeadLetter, FeedbackEvent, FeedbackLog
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory
from papa_serving.settings import Settings
from papa_serving.trainer.loop import TrainerLoop
from papa_serving.trainer.updater import Updater

from tests.trainer.tally_updater import MANIFEST

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
        return [(await self.manifest(user, one.revision))["events"] for one in await self.lineage(user)]

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
        assert [one.parent for one in lineage] == ["", *(one.revision for one in lineage[:-1])]
        for one in lineage:
            assert (await self.manifest(user, one.revision))["parent"] == one.parent

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
