"""Compares the revision store with Redis, and removes or restores what only one of them has.

A revision's files are written before the commit names them. So the store may hold one revision more than Redis, under
the next number, from an update that never committed. More than one means that Redis was emptied or set back. A Redis
that names no backbone was emptied: a single first revision is then lost as well, since it may have been committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from papa_serving.contracts.errors import RevisionNotFound, StoreAhead
from papa_serving.contracts.items import ItemStore
from papa_serving.contracts.revisions import Holding, Revision, RevisionStore, Standing, UserDirectory, revision_number

MANIFEST = "manifest.json"
SETTLED = 86_400.0
"""Seconds after which an update can no longer commit what it has written."""


class Kind(StrEnum):
    """Why a user's files differ from the lineage."""

    DELETED = "deleted"
    LOST = "lost"
    ORPHANS = "orphans"


@dataclass(frozen=True)
class Finding:
    """One user's difference; `revisions` maps those that Redis does not know to their age in seconds."""

    digest: str
    kind: Kind
    revisions: dict[str, float]


async def census(users: UserDirectory, revisions: RevisionStore, emptied: bool = False) -> AsyncIterator[Finding]:
    """Yields all users whose files differ from their lineage; `emptied`: Redis names no backbone.

    Raises StorageUnavailable.
    """
    async for holding in revisions.holdings():
        standing = await users.standing(holding.digest)
        unknown = {name: age for name, age in holding.revisions.items() if name not in standing.lineage}
        if unknown:
            lost = not standing.deleted and await is_ahead(revisions, holding, standing, emptied)
            yield Finding(
                holding.digest, Kind.DELETED if standing.deleted else Kind.LOST if lost else Kind.ORPHANS, unknown
            )


async def is_ahead(revisions: RevisionStore, holding: Holding, standing: Standing, emptied: bool = False) -> bool:
    """Whether the store holds committed revisions that Redis has lost.

    They have numbers that Redis has not given yet and are the end of a complete chain. The remains of an update that
    met a deletion are not a chain, because their parents are gone.
    """
    in_flight = 0 if emptied and standing == Standing() else 1
    if max(map(revision_number, holding.revisions)) <= standing.revisions + in_flight:
        return False
    return bool((await chain_of(revisions, holding.digest))[0])


async def refuse_ahead(users: UserDirectory, revisions: RevisionStore, digest: str) -> None:
    """Raises StoreAhead when an update would overwrite revisions of this user that Redis has lost."""
    async for holding in revisions.holdings(digest):
        if await is_ahead(revisions, holding, await users.standing(digest)):
            newest = max(holding.revisions)
            raise StoreAhead(f"the revision store holds {newest}, which Redis does not know; see papa store check")


async def refuse_emptied(items: ItemStore, users: UserDirectory, revisions: RevisionStore) -> None:
    """Raises ValueError when Redis is empty but the revision store holds a user."""
    if await items.backbone_info() is not None:
        return
    async for holding in revisions.holdings():
        if await users.standing(holding.digest) == Standing():
            raise ValueError(
                f"Redis is empty, but the revision store is not (it holds {max(holding.revisions)}, for instance): "
                "connect to the Redis that belongs to it, restore that one's backup, or put back what the files tell "
                "with papa store repair, then papa store sweep --older-than 0"
            )


async def sweep(users: UserDirectory, revisions: RevisionStore, settled: float = SETTLED, emptied: bool = False) -> int:
    """Removes revisions of deleted users and orphans older than `settled` seconds; returns how many.

    Revisions that Redis has lost are never removed.
    """
    removed = 0
    async for finding in census(users, revisions, emptied):
        for revision, age in finding.revisions.items():
            if finding.kind is Kind.DELETED or (finding.kind is Kind.ORPHANS and age >= settled):
                await revisions.discard(finding.digest, revision)
                removed += 1
    return removed


async def repair(users: UserDirectory, revisions: RevisionStore, emptied: bool = False) -> int:
    """Restores lineages that Redis has lost from the manifests; returns the number of users."""
    repaired = 0
    async for finding in census(users, revisions, emptied):
        if finding.kind is Kind.LOST:
            chain, events = await chain_of(revisions, finding.digest)
            repaired += bool(chain) and await users.restore(finding.digest, chain, events)
    return repaired


async def chain_of(revisions: RevisionStore, digest: str) -> tuple[list[Revision], set[str]]:
    """The lineage that ends in the user's newest revision, oldest first, and the ids of the events that it applied.

    The chain may begin at a revision whose parent was removed by the quota, which leaves nothing older. Both are empty
    when a part is missing in between, as a deletion that was interrupted leaves it, and when the newest revision itself
    has lost its parent: an update in flight leaves such a revision behind after a deletion.
    """
    names = [name async for holding in revisions.holdings(digest) for name in holding.revisions]
    chain: list[tuple[str, bytes]] = []
    wanted = max(names, default="")
    while wanted:
        try:
            text = await revisions.read(digest, wanted, MANIFEST)
        except RevisionNotFound:
            if len(chain) < 2 or min(names) <= wanted:
                return [], set()
            break
        chain.append((wanted, text))
        wanted = json.loads(text)["parent"]
    made: list[Revision] = []
    events: set[str] = set()
    for name, text in reversed(chain):
        made.append(_record(name, text, made[-1].events_total if made else 0))
        events |= set(json.loads(text)["events"])
    return made, events


def _record(name: str, text: bytes, before: int) -> Revision:
    manifest = json.loads(text)
    return Revision(
        name=name,
        parent=manifest["parent"],
        created_at=manifest["created_at"],
        sha256=hashlib.sha256(text).hexdigest(),
        events_applied=len(manifest["events"]),
        events_total=before + len(manifest["events"]),
        first_sequence=manifest["first_sequence"],
        last_sequence=manifest["last_sequence"],
        accepted_at=manifest["created_at"],
    )
