"""A memory stub of the feedback log, for one process. It passes the same tests as the log on Redis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from papa_serving.contracts.errors import Fenced, LineageConflict, UserDeleted
from papa_serving.contracts.feedback import (
    AppendResult,
    DeadLetter,
    FeedbackEvent,
    FeedbackLog,
    Lease,
    LoggedEvent,
    PartitionStats,
    UserBatch,
)
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.feedback.entries import (
    DELETED,
    FULL,
    MERGED_ID,
    MERGES,
    NO_EVENT,
    NO_ITEM,
    REUSED,
    USER_FULL,
    digest,
    does_without_item,
    milliseconds,
    note,
    order,
    refusal,
)
from papa_serving.store.memory import MemoryPartition, MemoryState

__all__ = ["MemoryFeedbackLog"]


class MemoryFeedbackLog(FeedbackLog):
    """A feedback log whose methods never interleave."""

    def __init__(self, state: MemoryState) -> None:
        self.partitions = len(state.partitions)
        self._state = state

    @override
    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        return [self._append(event) for event in events]

    @override
    async def acquire(self, partition: int, owner: str, seconds: float) -> Lease | None:
        part, now = self._state.partitions[partition], self._state.clock()
        lasts = part.lease is not None and part.since <= now < part.lease.expires_at
        if lasts and part.lease is not None and part.lease.owner != owner:
            return None
        part.epoch += not lasts
        part.since = now
        part.lease = Lease(partition, owner, part.epoch, now + seconds)
        return part.lease

    @override
    async def renew(self, lease: Lease, seconds: float) -> Lease:
        """Also renews an expired lease if nobody has taken the partition since."""
        part = self._owned(lease)
        part.since = self._state.clock()
        part.lease = replace(lease, expires_at=part.since + seconds)
        return part.lease

    @override
    async def release(self, lease: Lease) -> None:
        if self._holds(lease):
            self._state.partitions[lease.partition].lease = None

    @override
    async def read(self, lease: Lease, after: str, limit: int) -> list[LoggedEvent]:
        entries = self._owned(lease).events.values()
        return [event for event in entries if not after or order(event.entry_id) > order(after)][:limit]

    @override
    async def pending(self, user: UserKey, after: int = 0, limit: int = 100) -> list[LoggedEvent]:
        events = self._state.partition_of(user).events.values()
        return [event for event in events if event.user == user and event.sequence > after][:limit]

    @override
    async def news(self, after: Mapping[int, str]) -> set[int]:
        return {
            partition
            for partition, seen in after.items()
            if any(not seen or order(entry) > order(seen) for entry in self._state.partitions[partition].events)
        }

    @override
    async def begin_attempt(self, lease: Lease, batch: UserBatch) -> tuple[int, ...]:
        """Returns 0 for events that are gone."""
        events = self._owned(lease).events
        for event in batch.events:
            if event.entry_id in events:
                known = events[event.entry_id]
                events[event.entry_id] = replace(known, attempts=known.attempts + 1)
        return tuple(events[e.entry_id].attempts if e.entry_id in events else 0 for e in batch.events)

    @override
    async def commit(self, lease: Lease, batch: UserBatch, revision: Revision) -> bool:
        """LineageConflict also when the events are not the user's oldest unapplied ones."""
        user = self._state.user(batch.user)
        if revision.name in user.lineage:
            return True
        events = self._owned(lease).events
        if user.current != revision.parent:
            raise LineageConflict(f"the pointer is not {revision.parent or 'the base'} any more")
        pending = [entry for entry, event in events.items() if event.user == batch.user]
        applied = [event.entry_id for event in batch.events]
        if pending[: len(applied)] != applied:
            raise LineageConflict("the events are not the user's oldest unapplied ones")
        for entry in applied:
            del events[entry]
        self._state.promote(batch.user, revision)
        return True

    @override
    async def adopt(self, user: UserKey, revision: Revision) -> None:
        known = self._state.user(user)
        if revision.name in known.lineage:
            return
        if known.current != revision.parent:
            raise LineageConflict(f"the pointer is not {revision.parent or 'the base'} any more")
        self._state.promote(user, revision)

    @override
    async def bury(self, lease: Lease, events: Sequence[LoggedEvent], reason: str) -> None:
        """Skips events that are gone."""
        part = self._owned(lease)
        for event in events:
            known = part.events.pop(event.entry_id, None)
            if known is not None:
                letter = self._state.next_id()
                at = milliseconds(letter) / 1000
                part.letters[letter] = DeadLetter(letter, lease.partition, known, reason, at)
                self._state.changed(known.user)

    @override
    async def stats(self, partition: int) -> PartitionStats:
        part = self._state.partitions[partition]
        oldest = next(iter(part.events.values()), None)
        age = max(0.0, self._state.clock() - oldest.accepted_at) if oldest else 0.0
        return PartitionStats(len(part.events), age, len(part.letters))

    @override
    async def dead_letters(self, partition: int, limit: int = 100, after: str = "") -> list[DeadLetter]:
        letters = self._state.partitions[partition].letters.items()
        return [letter for letter_id, letter in letters if not after or order(letter_id) > order(after)][:limit]

    @override
    async def dead_letter(self, partition: int, letter_id: str) -> DeadLetter | None:
        return self._state.partitions[partition].letters.get(letter_id)

    @override
    async def retry_dead_letter(self, letter: DeadLetter) -> bool:
        """Gives the event a new sequence, by which its id is known from then on, and resets its attempts to 0."""
        part = self._state.partitions[letter.partition]
        known = part.letters.pop(letter.letter_id, None)
        if known is None:
            return False
        event = known.event
        sequence = self._accept(replace(event, attempts=0))
        user = self._state.user(event.user)
        _, what, number = user.said(event.event_id)
        if number <= event.sequence:  # else the id was forgotten, and is a later event's
            user.older_ids.pop(event.event_id, None)
            user.ids[event.event_id] = (self._state.clock(), what, sequence)
        if event.sequence in user.grades:
            user.grades[sequence] = user.grades.pop(event.sequence)
        if user.merging:
            user.renumbered[sequence] = user.renumbered.pop(event.sequence, event.sequence)
        return True

    @override
    async def drop_dead_letter(self, letter: DeadLetter) -> bool:
        """The event id stays known."""
        known = self._state.partitions[letter.partition].letters.pop(letter.letter_id, None)
        if known is not None:
            self._state.changed(known.event.user)
        return known is not None

    @override
    async def heartbeat(self, member: str, seconds: float) -> list[str]:
        now = self._state.clock()
        self._state.trainers[member] = now, seconds
        return sorted(name for name, (since, length) in self._state.trainers.items() if since <= now < since + length)

    @override
    async def close(self) -> None:
        pass

    def _holds(self, lease: Lease) -> bool:
        held = self._state.partitions[lease.partition].lease
        return held is not None and (held.owner, held.epoch) == (lease.owner, lease.epoch)

    def _owned(self, lease: Lease) -> MemoryPartition:
        if not self._holds(lease):
            raise Fenced(f"epoch {lease.epoch} of partition {lease.partition} is over")
        return self._state.partitions[lease.partition]

    def _append(self, event: FeedbackEvent) -> AppendResult:
        try:
            user = self._state.user(event.user)
        except UserDeleted:
            return AppendResult(event.event_id, error=refusal(DELETED, event))
        now = self._state.clock()
        at, what, sequence = user.said(event.event_id)
        if sequence and (now < at + self._state.settings.store.event_id_ttl or self._waits(event.user, sequence)):
            if what not in (b"", digest(event)):
                return AppendResult(event.event_id, error=refusal(REUSED, event))
            return AppendResult(event.event_id, sequence, duplicate=True, item_gone=sequence in user.gone)
        if merged := MERGED_ID.fullmatch(event.event_id):
            merge, number = merged.group(1), int(merged.group(2))
            if number <= user.merged.get(merge, 0):
                return AppendResult(event.event_id, duplicate=True)
        news = 2 if event.cancels else event.is_label
        if news and len(user.ids) + news > self._most_ids(event.user):
            return AppendResult(event.event_id, error=refusal(USER_FULL, event))
        result = self._cancel(event) if event.cancels else self._label(event) if event.is_label else self._noted(event)
        if result.error is None and (kept := note(event)):
            self._state.keep(user.attributed, kept, self._state.settings.attribution.events)
        return result

    def _noted(self, event: FeedbackEvent) -> AppendResult:
        """Accepts an event that is no label: nothing waits for a trainer. Its id is kept apart, as in append.lua."""
        user, half = self._state.user(event.user), max(1, self._state.settings.store.user_event_ids // 4)
        if user.noted_ids and len(user.noted_ids) + 1 > half:
            user.older_noted_ids, user.noted_ids = user.noted_ids, {}
        user.sequence += 1
        user.noted_ids[event.event_id] = (self._state.clock(), digest(event), user.sequence)
        self._state.changed(event.user)
        return AppendResult(event.event_id, user.sequence)

    def _label(self, event: FeedbackEvent) -> AppendResult:
        """Accepts a label that is new."""
        user, now = self._state.user(event.user), self._state.clock()
        if full := self._full(event.user):
            return AppendResult(event.event_id, error=refusal(full, event))
        item = self._state.item(event.user, event.item_id) if event.item_id else None
        if item is None and not event.image and does_without_item(event):
            noted = self._noted(event)
            user.gone.add(noted.sequence)
            return replace(noted, item_gone=True)
        if item is None and not event.image:
            return AppendResult(event.event_id, error=refusal(NO_ITEM, event))
        sample, revision = (item.sample, item.revision) if item else (event.image, "")
        self._make_room(event.user, 1)
        user.likes += event.grade > 0
        user.dislikes += event.grade <= 0
        sequence = self._accept(
            LoggedEvent("", 0, event.event_id, event.user, event.grade, sample, revision, 0.0, event.traceparent)
        )
        user.ids[event.event_id] = (now, digest(event), sequence)
        user.grades[sequence] = event.grade
        if merged := MERGED_ID.fullmatch(event.event_id):
            user.merged[merged.group(1)] = int(merged.group(2))
            while len(user.merged) > MERGES:
                del user.merged[next(iter(user.merged))]
        return AppendResult(event.event_id, sequence)

    def _cancel(self, event: FeedbackEvent) -> AppendResult:
        """Takes an event back, as append.lua does."""
        user, part = self._state.user(event.user), self._state.partition_of(event.user)
        _, _, number = user.said(event.cancels)
        if not number:
            return AppendResult(event.event_id, error=refusal(NO_EVENT, event))
        grade = user.grades.pop(number, 0.0)
        if not grade:  # taken back before, or no label
            return self._noted(event)
        said = user.said(event.cancels)
        self._make_room(event.user, 1 + (event.cancels not in user.ids))
        user.likes -= grade > 0
        user.dislikes -= grade < 0
        user.ids[event.cancels] = said
        if user.merging:
            user.ended.append(number)
        waiting = [key for key, each in part.events.items() if (each.user, each.sequence) == (event.user, number)]
        dead = [
            key for key, each in part.letters.items() if (each.event.user, each.event.sequence) == (event.user, number)
        ]
        for key in waiting:
            del part.events[key]
        for key in dead:
            del part.letters[key]
        if not waiting and not dead:
            sequence = self._accept(
                LoggedEvent("", 0, event.event_id, event.user, 0.0, b"", "", 0.0, event.traceparent, 0, number)
            )
        else:
            user.sequence += 1
            sequence = user.sequence
            self._state.changed(event.user)
        user.ids[event.event_id] = (self._state.clock(), digest(event), sequence)
        return AppendResult(event.event_id, sequence)

    def _waits(self, user: UserKey, sequence: int) -> bool:
        waiting = self._state.partition_of(user).events.values()
        return any((each.user, each.sequence) == (user, sequence) for each in waiting)

    def _older_must_stay(self, user: UserKey) -> bool:
        """Whether an event waits whose id is among the older ones."""
        known = self._state.user(user)
        if not known.older_ids:
            return False
        waiting = self._state.partition_of(user).events.values()
        return any(each.user == user and each.sequence <= known.set_aside for each in waiting)

    def _most_ids(self, user: UserKey) -> float:
        """How many ids may lie beside the older ones, as in append.lua."""
        if not self._older_must_stay(user):
            return math.inf
        settings = self._state.settings
        return max(settings.store.user_event_ids, settings.feedback.backlog_limit) // 2

    def _make_room(self, user: UserKey, new_ids: int) -> None:
        """Half of the event ids that a user may have take the place of the half before, as in append.lua."""
        known, half = self._state.user(user), self._state.settings.store.user_event_ids // 2
        if known.ids and len(known.ids) + new_ids > half and not self._older_must_stay(user):
            known.older_ids, known.ids, known.set_aside = known.ids, {}, known.sequence

    def _full(self, user: UserKey) -> int:
        """The outcome code that refuses a further event of the user; 0 when there is room."""
        waiting = self._state.partition_of(user).events.values()
        room = self._state.settings.feedback.backlog_limit - len(waiting)
        if room <= 0:
            return FULL
        full = len(waiting) >= room and sum(each.user == user for each in waiting) >= room
        return USER_FULL if full else 0

    def _accept(self, event: LoggedEvent) -> int:
        """Puts the event behind all others and returns its sequence."""
        user, entry = self._state.user(event.user), self._state.next_id()
        user.sequence += 1
        self._state.partition_of(event.user).events[entry] = replace(
            event, entry_id=entry, sequence=user.sequence, accepted_at=milliseconds(entry) / 1000
        )
        self._state.changed(event.user)
        return user.sequence
