"""Reads new events of the owned partitions from the log into memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic

from papa_serving import metrics, tracing
from papa_serving.contracts.errors import Fenced, StorageDamaged
from papa_serving.contracts.feedback import FeedbackLog, LoggedEvent
from papa_serving.trainer.fault import reach
from papa_serving.trainer.gathering import Gathering
from papa_serving.trainer.ownership import Ownership
from papa_serving.trainer.updater import Updater
from papa_serving.trainer.worker import Worker

_log = logging.getLogger(__name__)

EVENTS_PER_READ = 500
"""Events of one read. With latents of 4 × 64 × 64 float16 the reply has 16 MB."""
EVENTS_PER_PARTITION = 4_000
"""The most events of one partition that are held in memory. The others wait in the log, in order."""
DAMAGE_PAUSE = 15.0
"""Seconds before a partition is read again whose entries could not be understood."""


class Intake:
    """Fills one gathering per lease from the log. Events that can never be trained on become dead letters."""

    def __init__(self, log: FeedbackLog, ownership: Ownership, updater: Updater, worker: Worker) -> None:
        self._feedback = log
        self._ownership = ownership
        self._updater = updater
        self._worker = worker
        self._gatherings: dict[int, Gathering] = {}
        self._damaged_until: dict[int, float] = {}

    @property
    def gatherings(self) -> Mapping[int, Gathering]:
        """The gatherings, by partition."""
        return self._gatherings

    def forget(self, gathering: Gathering) -> None:
        """Drops what was read under this lease; if the lease is still held, the log is read again from its start."""
        if self._gatherings.get(gathering.lease.partition) is gathering:
            del self._gatherings[gathering.lease.partition]

    async def look(self) -> None:
        """Reads the new events. Raises StorageUnavailable; of a partition with damaged entries it only says so."""
        self._follow_leases()
        now = monotonic()
        open_ones = {
            partition: gathering.cursor
            for partition, gathering in self._gatherings.items()
            if len(gathering) < EVENTS_PER_PARTITION and self._damaged_until.get(partition, 0.0) <= now
        }
        if not open_ones:
            return
        news = await self._feedback.news(open_ones)
        await asyncio.gather(*(self._read(self._gatherings[partition]) for partition in news))

    def _follow_leases(self) -> None:
        leases = self._ownership.leases
        for partition in self._gatherings.keys() - leases.keys():
            del self._gatherings[partition]
        for partition, lease in leases.items():
            known = self._gatherings.get(partition)
            if known is None or known.lease.epoch != lease.epoch:
                self._gatherings[partition] = Gathering(lease)

    async def _read(self, gathering: Gathering) -> None:
        """Reads the partition to its end, or until there are enough.

        A user's events that were accepted together are then trained on together, wherever a read of the log cuts them.
        """
        try:
            while await self._read_page(gathering) == EVENTS_PER_READ and len(gathering) < EVENTS_PER_PARTITION:
                continue
        except Fenced:
            self._ownership.lost(gathering.lease)
            self.forget(gathering)
        except StorageDamaged as error:
            self._damaged_until[gathering.lease.partition] = monotonic() + DAMAGE_PAUSE
            _log.error("a partition cannot be read: %s", error, extra={"partition": gathering.lease.partition})

    async def _read_page(self, gathering: Gathering) -> int:
        """Reads the next events of a partition and returns how many there were."""
        events = await self._feedback.read(gathering.lease, gathering.cursor, EVENTS_PER_READ)
        if not events:
            return 0
        reach("after_read")
        flaws = await self._worker.run(self._flaws, events)
        await self._bury_flawed(gathering, events, flaws)
        gathering.add((event for event in events if not flaws[event.entry_id]), monotonic())
        gathering.cursor = events[-1].entry_id
        return len(events)

    def _flaws(self, events: list[LoggedEvent]) -> dict[str, str]:
        """Flaws by entry. Runs in the worker's thread, since encoding many prompts would delay renewals of leases."""
        return {event.entry_id: self._updater.flaw(event) for event in events}

    async def _bury_flawed(self, gathering: Gathering, events: list[LoggedEvent], flaws: Mapping[str, str]) -> None:
        """Buries flawed events at once, because no further attempt could succeed."""
        for flaw in sorted({flaw for flaw in flaws.values() if flaw}):
            flawed = [event for event in events if flaws[event.entry_id] == flaw]
            await bury(self._feedback, gathering, flawed, "sample", flaw)


async def bury(log: FeedbackLog, gathering: Gathering, events: list[LoggedEvent], kind: str, reason: str) -> None:
    """Turns events into dead letters with this `reason`; `kind` is the metric's label. Raises Fenced."""
    links = dict.fromkeys(event.traceparent for event in events)
    with tracing.span("bury", "consumer", parent="", links=links, attributes={"papa.events": len(events)}) as span:
        await log.bury(gathering.lease, events, reason)
        span.settle(kind)
    metrics.FEEDBACK_DEAD_LETTERS.labels(kind).inc(len(events))
    for event in events:
        _log.error("buried an event", extra={"event_id": event.event_id, "attempts": event.attempts, "reason": reason})
