"""Finds the adapter that serves a generation: the requested revision, checked, or its nearest good ancestor."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass

import torch

from papa.denoiser import Denoiser
from papa.revision_files import (
    HEAD_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    AdapterDamagedError,
    has_head,
    unpack_head,
    unpack_weights,
)
from papa.taste import Head
from papa_serving import metrics
from papa_serving.contracts.errors import PapaError, RevisionDamaged, RevisionNotFound, UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import BASE, Revision, RevisionStore, UserDirectory
from papa_serving.generator.host_cache import HostCache
from papa_serving.generator.job import AdapterKey, HostAdapter
from papa_serving.generator.slots import Slots

_log = logging.getLogger(__name__)

REFUSAL_SECONDS = 30.0
"""Seconds for which a damaged revision is not read again. An operator may repair it meanwhile."""


@dataclass(frozen=True, eq=False)
class Resolved:
    """The adapter of a generation; `load_seconds` is 0 unless it was fetched from the store."""

    record: Revision
    adapter: HostAdapter
    load_seconds: float = 0.0

    @property
    def labels(self) -> int:
        """The labels that the taste head was made from; 0 without a head. A head of before that field says nothing of
        them, and the revision counts the user's events."""
        head = self.adapter.head
        return 0 if head is None else head.labels or self.record.events_total


class Adapters:
    """Looks on the device, then in host memory, then in the store. Belongs to one event loop; checking runs in worker
    threads."""

    def __init__(
        self,
        users: UserDirectory,
        revisions: RevisionStore,
        denoiser: Denoiser,
        slots: Slots,
        host_cache: int,
        judges: bool = True,
    ) -> None:
        """`judges`: whether to load the taste heads as well."""
        self._users = users
        self._revisions = revisions
        self._layout, self._hashes, self._dtype = denoiser.layout, denoiser.hashes, denoiser.dtype
        self._pinned = denoiser.device.type == "cuda"
        self._slots = slots
        self.judges = judges
        self._host = HostCache(host_cache)
        self._refused: dict[AdapterKey, float] = {}

    async def resolve(self, user: UserKey, asked: str) -> Resolved | None:
        """The adapter for `asked`, a revision, "" (the newest) or "base"; None means the base serves.

        Raises RevisionNotFound and RevisionDamaged for an exact revision; UserDeleted, StorageUnavailable. Without an
        exact one a damaged revision gives way to its nearest good ancestor, at last to the base.
        """
        if asked not in ("", BASE):
            return await self._exact(user, asked)
        try:
            record = await self._users.current(user)
        except UserDeleted:
            self.forget(user)
            raise
        while record is not None and asked != BASE:
            try:
                return await self._checked(user, record)
            except RevisionDamaged:
                record = await self._users.parent(user, record)
        return None

    def refuse_output(self, resolved: Resolved) -> RevisionDamaged:
        """Marks a revision whose files are whole but whose samples are not finite; it is never served again here."""
        return self._refuse(resolved.adapter.key, "output", "its samples are not finite", math.inf)

    def users(self) -> set[UserKey]:
        """The users whose adapters are in any cache."""
        return self._host.users() | self._slots.users()

    def forget(self, user: UserKey) -> None:
        """Removes the user's adapters from every cache."""
        self._host.forget(user)
        self._slots.forget(user)

    async def _exact(self, user: UserKey, asked: str) -> Resolved:
        record = await self._users.revision(user, asked)
        return await self._checked(user, record)

    async def _checked(self, user: UserKey, record: Revision) -> Resolved:
        """The revision with its adapter from the nearest tier. Raises RevisionDamaged."""
        key = AdapterKey(user, record.name)
        if self._refused.get(key, 0.0) > time.monotonic():
            raise RevisionDamaged(f"revision {record.name} is damaged")
        for tier, find in (("device", self._slots.find), ("host", self._host.find)):
            adapter = find(key)
            if adapter is not None:
                metrics.ADAPTER_LOOKUPS.labels(tier).inc()
                return Resolved(record, adapter)
        start = time.perf_counter()
        adapter = await self._host.load(key, lambda key: self._load(key, record))
        metrics.ADAPTER_LOOKUPS.labels("store").inc()
        return Resolved(record, adapter, time.perf_counter() - start)

    async def _load(self, key: AdapterKey, record: Revision) -> HostAdapter:
        start = time.perf_counter()
        try:
            manifest, weights = await asyncio.gather(
                *(self._revisions.get(key.user, key.revision, name) for name in (MANIFEST_FILE, WEIGHTS_FILE))
            )
            files = {MANIFEST_FILE: manifest, WEIGHTS_FILE: weights}
            checked = await asyncio.to_thread(self._unpack, files, record.sha256)
            adapter = HostAdapter(key, checked, await self._head(key, manifest, record.sha256))
        except RevisionNotFound as error:
            raise self._refuse(key, "missing", str(error)) from error
        except AdapterDamagedError as error:
            raise self._refuse(key, error.reason, str(error)) from error
        metrics.ADAPTER_LOAD_SECONDS.observe(time.perf_counter() - start)
        return adapter

    async def _head(self, key: AdapterKey, manifest: bytes, sha256: str) -> Head | None:
        """The taste head; None where no head is used or the stored one is damaged. The adapter works without it."""
        if not self.judges or not has_head(manifest):
            return None
        try:
            files = {MANIFEST_FILE: manifest, HEAD_FILE: await self._revisions.get(key.user, key.revision, HEAD_FILE)}
            return await asyncio.to_thread(unpack_head, files, sha256)
        except (AdapterDamagedError, RevisionNotFound) as error:
            _log.warning(
                "a stored taste head is damaged: nothing is said of how likely its user likes an item",
                extra={"revision": key.revision, "user_digest": key.user.digest, "detail": str(error)},
            )
            return None

    def _unpack(self, files: dict[str, bytes], sha256: str) -> torch.Tensor:
        try:
            weights = unpack_weights(files, self._layout, self._hashes, sha256).to(self._dtype)
        except AdapterDamagedError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise AdapterDamagedError("format", f"the manifest is not one of ours: {error!r}") from error
        if not bool(torch.isfinite(weights).all()):
            raise AdapterDamagedError("finite", f"the adapter does not fit into {self._dtype}")
        return weights.pin_memory() if self._pinned else weights

    def _refuse(self, key: AdapterKey, reason: str, message: str, seconds: float = REFUSAL_SECONDS) -> RevisionDamaged:
        now = time.monotonic()
        self._refused = {k: until for k, until in self._refused.items() if until > now} | {key: now + seconds}
        metrics.ADAPTER_REFUSED.labels(reason).inc()
        _log.error(
            "a stored revision is damaged and is not served",
            extra={"revision": key.revision, "user_digest": key.user.digest, "reason": reason, "detail": message},
        )
        return RevisionDamaged(f"revision {key.revision} is damaged ({reason}): {message}")


async def forget_deleted_users(users: UserDirectory, adapters: Adapters, every: float) -> None:
    """Removes deleted users' adapters from the caches, even if nobody requests such a user again.

    Asks for each cached user about every `every` seconds, evenly spread; runs until it is cancelled.
    """
    while True:
        try:
            await _ask_for_each(users, adapters, every)
        except PapaError as error:
            _log.warning("the caches could not be checked for deleted users", extra={"detail": error.message})
            await asyncio.sleep(every)


async def _ask_for_each(users: UserDirectory, adapters: Adapters, seconds: float) -> None:
    cached = adapters.users()
    pause = seconds / max(1, len(cached))
    for user in cached:
        await asyncio.sleep(pause)
        try:
            await users.current(user)
        except UserDeleted:
            adapters.forget(user)
            _log.info("a deleted user's adapters left the caches", extra={"user_digest": user.digest})
    if not cached:
        await asyncio.sleep(pause)
