"""Owns this trainer's fair share of the partitions through leases, which it renews in the background.

All trainers compute the same shares from the list of live trainers, so they agree without further messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic

from papa_serving import metrics
from papa_serving.contracts.errors import Fenced, StorageUnavailable
from papa_serving.contracts.feedback import FeedbackLog, Lease

_log = logging.getLogger(__name__)

_TICKS_PER_LEASE = 10
"""Rounds per lease: a new trainer gets its partitions within a tenth of a lease."""
_RENEWALS_PER_LEASE = 3
"""Renewals per lease: two of them may fail before the lease is lost."""


class Ownership:
    """Keeps the leases of this trainer's fair share.

    `member` must be new for every process. A reused name would continue the old epochs, and a predecessor that is slow
    but not dead would not be fenced.
    """

    def __init__(self, log: FeedbackLog, member: str, seconds: float) -> None:
        self._feedback = log
        self._member = member
        self._seconds = seconds
        self._leases: dict[int, Lease] = {}
        self._renewed: dict[int, float] = {}
        self._busy: Counter[int] = Counter()
        self._acquiring: set[asyncio.Task[None]] = set()

    @property
    def leases(self) -> Mapping[int, Lease]:
        """The leases held, by partition."""
        return self._leases

    def holds(self, lease: Lease) -> bool:
        """Whether this process still believes that it holds the lease, including its renewals."""
        held = self._leases.get(lease.partition)
        return held is not None and held.epoch == lease.epoch

    def lost(self, lease: Lease) -> None:
        """Forgets a lease after an operation under it was refused as Fenced."""
        if self.holds(lease):
            del self._leases[lease.partition]
            _log.warning(
                "lost a partition to another trainer", extra={"partition": lease.partition, "epoch": lease.epoch}
            )

    @contextmanager
    def busy(self, partitions: Iterable[int]) -> Iterator[None]:
        """Within the block these partitions are kept, even if they now belong to another trainer's share."""
        marked = Counter(set(partitions))
        self._busy += marked
        try:
            yield
        finally:
            self._busy -= marked

    async def keep(self, end: asyncio.Event) -> None:
        """Sends heartbeats, and acquires, renews and releases leases until `end`. Retries after storage errors."""
        while not end.is_set():
            try:
                await self.tick()
            except StorageUnavailable as error:
                _log.warning("cannot keep leases: %s", error)
            await pause(end, self._seconds / _TICKS_PER_LEASE)

    async def tick(self) -> None:
        """One round. Raises StorageUnavailable."""
        members = await self._feedback.heartbeat(self._member, self._seconds)
        due = monotonic() - self._seconds / _RENEWALS_PER_LEASE
        await asyncio.gather(*(self._renew(x) for x in self._leases.values() if self._renewed[x.partition] <= due))
        wanted = fair_share(self._member, members, self._feedback.partitions)
        await asyncio.gather(*(self._acquire(partition) for partition in wanted - self._leases.keys()))
        unwanted = self._leases.keys() - wanted - self._busy.keys()
        await asyncio.gather(*(self._release(self._leases[partition]) for partition in unwanted))
        metrics.PARTITIONS_OWNED.set(len(self._leases))

    async def leave(self) -> None:
        """Releases all leases and ends the membership, so that no trainer must wait for the leases to expire."""
        await asyncio.gather(*self._acquiring, return_exceptions=True)
        await asyncio.gather(*(self._release(lease) for lease in tuple(self._leases.values())))
        await self._feedback.heartbeat(self._member, 0.0)
        metrics.PARTITIONS_OWNED.set(0)

    async def _acquire(self, partition: int) -> None:
        # Shielded: a call that is cancelled may have been granted its lease all the same, and `leave` must know of it.
        acquiring = asyncio.create_task(self._ask_for(partition))
        self._acquiring.add(acquiring)
        acquiring.add_done_callback(self._acquiring.discard)
        await asyncio.shield(acquiring)

    async def _ask_for(self, partition: int) -> None:
        lease = await self._feedback.acquire(partition, self._member, self._seconds)
        if lease is not None:
            self._leases[partition] = lease
            self._renewed[partition] = monotonic()

    async def _renew(self, lease: Lease) -> None:
        asked = monotonic()
        try:
            renewed = await self._feedback.renew(lease, self._seconds)
        except Fenced:
            self.lost(lease)
            return
        if self.holds(lease):
            self._leases[lease.partition] = renewed
            self._renewed[lease.partition] = asked

    async def _release(self, lease: Lease) -> None:
        # Forgotten first, so that nobody begins work meanwhile that the release would fence.
        self._leases.pop(lease.partition, None)
        await self._feedback.release(lease)


async def pause(end: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not beyond `end`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(end.wait(), seconds)


def fair_share(member: str, members: Collection[str], partitions: int) -> frozenset[int]:
    """The partitions of `member`: those for which it has the highest score.

    Rendezvous hashing (Thaler and Ravishankar, 1998). A member that comes or goes moves only the partitions that it
    gains or leaves behind.
    """
    everybody = {member, *members}
    return frozenset(p for p in range(partitions) if max(everybody, key=lambda m: (_score(m, p), m)) == member)


def _score(member: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{partition}|{member}".encode(), digest_size=8).digest()
