"""What stands behind the gateway: the log, the user directory, items and revisions."""

from __future__ import annotations

from dataclasses import dataclass

from services.contracts.feedback import FeedbackLog
from services.contracts.items import ItemStore
from services.contracts.revisions import RevisionStore, UserDirectory
from services.feedback import open_log
from services.settings import Settings
from services.store import open_items, open_revisions, open_users


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
