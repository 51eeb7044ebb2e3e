"""The durable parts behind the gateway: feedback log, user directory, items and revisions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic

from papa_serving.attribution import open_activity
from papa_serving.catalogue import open_catalogues
from papa_serving.contracts.attribution import ActivityLog
from papa_serving.contracts.catalogue import Catalogues, Encoder
from papa_serving.contracts.errors import GeneratorUnavailable, PapaError, StorageUnavailable
from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.items import BackboneInfo, ItemStore
from papa_serving.contracts.recommending import SeenItems
from papa_serving.contracts.revisions import Quotas, RevisionStore, UserDirectory
from papa_serving.feedback import open_log
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_seen, open_users

_log = logging.getLogger(__name__)

BACKBONE_SECONDS = 30.0
"""Seconds after which the record about the backbone is read again."""


@dataclass(frozen=True)
class Backends:
    """One implementation of each contract."""

    log: FeedbackLog
    users: UserDirectory
    items: ItemStore
    revisions: RevisionStore
    quotas: Quotas
    catalogues: Catalogues
    activity: ActivityLog
    seen: SeenItems

    async def close(self) -> None:
        """Closes connections."""
        await self.log.close()
        await self.users.close()
        await self.items.close()
        await self.catalogues.close()
        await self.activity.close()
        await self.seen.close()


def open_backends(settings: Settings) -> Backends:
    """Opens what the configuration names. Each connects when it is first used. Raises ValueError for a bad URL."""
    stores = open_users(settings), open_items(settings), open_revisions(settings)
    log, activity = open_log(settings), open_activity(settings)
    catalogues, seen = open_catalogues(settings), open_seen(settings)
    return Backends(log, *stores, quotas_of(settings), catalogues, activity, seen)


def quotas_of(settings: Settings) -> Quotas:
    """The quotas of one user, whose waiting events may take half of a partition's backlog, no more than is left."""
    store, backlog = settings.store, settings.feedback.backlog_limit
    return Quotas(store.user_revisions, store.user_items, max(store.user_event_ids, backlog), (backlog + 1) // 2)


class KnownBackbone:
    """The backbone that a generator has announced.

    A deployment keeps its backbone, but the record may change: a new release announces another vocabulary, `papa store
    rehash` another hash. The record is therefore read again after BACKBONE_SECONDS. While storage does not answer, the
    last one stays in use.
    """

    def __init__(self, items: ItemStore) -> None:
        self._items = items
        self._info: BackboneInfo | None = None
        self._asked_at = 0.0

    async def info(self) -> BackboneInfo:
        """Raises GeneratorUnavailable before a generator has ever started, StorageUnavailable before the first look."""
        if self._info is None:
            self._asked_at = monotonic()
            self._info = await self._items.backbone_info()
        elif monotonic() - self._asked_at >= BACKBONE_SECONDS:
            await self._look_again(self._info)
        if self._info is None:
            raise GeneratorUnavailable("no generator has announced a backbone yet")
        return self._info

    async def _look_again(self, known: BackboneInfo) -> None:
        self._asked_at = monotonic()  # before the look: meanwhile, other calls go on with what is known
        try:
            self._info = await self._items.backbone_info() or known
        except StorageUnavailable as error:
            _log.warning("the record about the backbone cannot be read again: %s", error)


class KnownEncoder:
    """What the engine embeds pictures by. Asked for again after BACKBONE_SECONDS, as the backbone is."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._encoder: Encoder | None = None
        self._asked_at = 0.0

    async def get(self) -> Encoder:
        """Raises the engine's error where it gives no answer and has given none before."""
        if self._encoder is not None and monotonic() - self._asked_at < BACKBONE_SECONDS:
            return self._encoder
        try:
            answer = await self._engine.embed("", ())
        except PapaError:
            if self._encoder is None:
                raise
            self._asked_at = monotonic()
            return self._encoder
        self._encoder, self._asked_at = Encoder(answer.encoder, answer.size), monotonic()
        return self._encoder
