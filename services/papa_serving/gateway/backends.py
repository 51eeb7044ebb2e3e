"""The durable parts behind the gateway: feedback log, user directory, items and revisions."""

from __future__ import annotations

from dataclasses import dataclass

from papa_serving.contracts.errors import GeneratorUnavailable
from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.items import BackboneInfo, ItemStore
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.feedback import open_log
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_users


@dataclass(frozen=True)
class Backends:
    """One implementation of each contract."""

    log: FeedbackLog
    users: UserDirectory
    items: ItemStore
    revisions: RevisionStore

    async def close(self) -> None:
        """Closes connections."""
        await self.log.close()
        await self.users.close()
        await self.items.close()


def open_backends(settings: Settings) -> Backends:
    """Opens what the configuration names. Each connects when it is first used. Raises ValueError for a bad URL."""
    return Backends(open_log(settings), open_users(settings), open_items(settings), open_revisions(settings))


class KnownBackbone:
    """The backbone that a generator has announced. It is read once, since a deployment never changes it."""

    def __init__(self, items: ItemStore) -> None:
        self._items = items
        self._info: BackboneInfo | None = None

    async def info(self) -> BackboneInfo:
        """Raises GeneratorUnavailable before a generator has ever started, StorageUnavailable."""
        if self._info is None:
            self._info = await self._items.backbone_info()
        if self._info is None:
            raise GeneratorUnavailable("no generator has announced a backbone yet")
        return self._info
