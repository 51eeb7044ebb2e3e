"""What stands behind the gateway: the log, the user directory, items and revisions."""

from __future__ import annotations

from dataclasses import dataclass

from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.items import ItemStore
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.feedback import open_log
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_users


@dataclass(frozen=True)
class Backends:
    """Everything durable, by contract."""

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
    """Those of the configuration; they connect when first used. Raises ValueError for a bad URL."""
    return Backends(open_log(settings), open_users(settings), open_items(settings), open_revisions(settings))
