"""A state machine over the stores: random callers, trainers and operators against a model that fits on two pages.

A lease lasts a millisecond, so that whoever asks next takes the partition over, as after a crash; the one before goes
on with what it has read, as a trainer does that was only slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from papa_serving.contracts.errors import (
    EventIdReused,
    Fenced,
    LineageConflict,
    PapaError,
    RevisionNotFound,
    UserDeleted,
)
from papa_serving.contracts.feedback import Lease, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision

from tests.store.support import PARTITIONS, Backend, a_revision, image_event

T = TypeVar("T")
USERS = tuple(user for user in (UserKey("shop", f"u{n}") for n in range(99)) if user.partition(PARTITIONS) == 1)[:2]
PARTITION = 1
users, trainers = st.sampled_from(USERS), st.sampled_from(("one", "two"))
event_ids, grades = st.sampled_from([f"e{n}" for n in range(6)]), st.sampled_from([1.0, -1.0])


@dataclass
class Model:
    """One user as they should be. `said`: event id → grade and sequence; `pending`, `letters`: event ids in order."""

    said: dict[str, tuple[float, int]] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    lineage: list[Revision] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    current: str = ""
    sequence: int = 0
    deleted: bool = False


class LoopMachine(RuleBasedStateMachine):
    """Submit, retry, take over, read, attempt, commit, repeat, bury, settle a letter, rollback, reset, delete."""

    def __init__(self, open_backend: Callable[[], Backend]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.backend = self.wait(_opened(open_backend))
        self.models = {user: Model() for user in USERS}
        self.order: list[tuple[UserKey, str]] = []
        self.sequences: dict[tuple[UserKey, str], int] = {}
        self.attempts: dict[tuple[UserKey, str], int] = {}
        self.leases: dict[str, Lease] = {}
        self.holder, self.epoch, self.made = "", 0, 0
        self.read_by: dict[str, list[LoggedEvent]] = {}
        self.last: tuple[Lease, UserBatch, Revision] | None = None

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.wait(self.backend.close())
        self.runner.close()

    def fenced(self, trainer: str) -> bool:
        return self.leases[trainer].epoch != self.epoch

    def expect(self, work: Coroutine[Any, Any, T], error: type[PapaError] | None) -> T | None:
        """Runs the work, which must raise exactly this error."""
        if error is None:
            return self.wait(work)
        try:
            self.wait(work)
        except error:
            return None
        except PapaError as other:
            raise AssertionError(f"{error.__name__} was not raised, but {other!r}") from other
        raise AssertionError(f"{error.__name__} was not raised")

    @rule(user=users, event_id=event_ids, grade=grades)
    def submit(self, user: UserKey, event_id: str, grade: float) -> None:
        """Uses few event ids, so that most events are retries and some have another content."""
        (result,) = self.wait(self.backend.log.append([image_event(user, event_id, grade)]))
        model = self.models[user]
        known = model.said.get(event_id)
        if model.deleted:
            assert isinstance(result.error, UserDeleted)
        elif known is None:
            model.sequence += 1
            assert (result.error, result.sequence, result.duplicate) == (None, model.sequence, False)
            model.said[event_id] = grade, model.sequence
            self._accept(user, event_id)
        elif known[0] != grade:
            assert isinstance(result.error, EventIdReused)
        else:
            assert (result.error, result.sequence, result.duplicate) == (None, known[1], True)

    @rule(trainer=trainers)
    def take_over(self, trainer: str) -> None:
        """After a crash of the owner; what this one has read before is forgotten."""
        time.sleep(0.002)
        lease = self.wait(self.backend.log.acquire(PARTITION, trainer, 0.001))
        assert lease is not None
        assert lease.epoch > self.epoch
        self.leases[trainer], self.holder, self.epoch = lease, trainer, lease.epoch
        self.read_by[trainer] = []

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        trainer = self._trainer(data)
        work = self.backend.log.read(self.leases[trainer], "", 100)
        events = self.expect(work, Fenced if self.fenced(trainer) else None)
        if events is None:
            return
        assert [(event.user, event.event_id) for event in events] == self.order
        assert [event.attempts for event in events] == [self.attempts.get(entry, 0) for entry in self.order]
        self.read_by[trainer] = events

    @precondition(lambda self: any(self.read_by.values()))
    @rule(data=st.data(), user=users)
    def attempt(self, data: st.DataObject, user: UserKey) -> None:
        """Begins an attempt at events that were read and may be gone."""
        trainer = self._trainer(data)
        batch = self._batch(trainer, user, 3)
        work = self.backend.log.begin_attempt(self.leases[trainer], batch)
        counts = self.expect(work, Fenced if self.fenced(trainer) else None)
        if counts is None:
            return
        expected = []
        for event in batch.events:
            there = self._is_pending(event)
            if there:
                self.attempts[user, event.event_id] = self.attempts.get((user, event.event_id), 0) + 1
            expected.append(self.attempts[user, event.event_id] if there else 0)
        assert list(counts) == expected

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), user=users, size=st.integers(1, 3), skip=st.integers(0, 5), right=st.booleans())
    def commit(self, data: st.DataObject, user: UserKey, size: int, skip: int, right: bool) -> None:
        """Commits with the right parent or another one, the first events that were read or, rarely, later ones."""
        trainer, model = self._trainer(data), self.models[user]
        batch = self._batch(trainer, user, size, 1 if skip == 5 else 0)
        self.made += 1
        parent = model.current if right else "000000-00000000"
        revision = a_revision(self.made, parent, batch)
        lease = self.leases[trainer]
        names = [event.event_id for event in batch.events]
        oldest = all(map(self._is_pending, batch.events)) and names == model.pending[: len(names)]
        error: type[PapaError] | None = None
        if model.deleted:
            error = UserDeleted
        elif self.fenced(trainer):
            error = Fenced
        elif not right or not oldest:
            error = LineageConflict
        self.expect(self.backend.log.commit(lease, batch, revision), error)
        if error is None:
            self._remove(user, names)
            model.applied += names
            model.lineage.append(revision)
            model.current = revision.name
            self.last = lease, batch, revision

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat_the_last_commit(self) -> None:
        """Repeats a commit whose reply was lost. The owner may have changed, or the user may be gone."""
        assert self.last is not None
        deleted = self.models[self.last[1].user].deleted
        self.expect(self.backend.log.commit(*self.last), UserDeleted if deleted else None)

    @precondition(lambda self: any(self.read_by.values()))
    @rule(data=st.data(), user=users)
    def bury(self, data: st.DataObject, user: UserKey) -> None:
        """The first that was read of a user, if it is still there."""
        trainer = self._trainer(data)
        events = self._batch(trainer, user, 1).events
        gone = self.fenced(trainer)
        self.expect(self.backend.log.bury(self.leases[trainer], events, "poison"), Fenced if gone else None)
        for event in () if gone else events:
            if self._is_pending(event):
                self._remove(user, [event.event_id])
                self.models[user].letters.append(event.event_id)

    @precondition(lambda self: any(model.letters for model in self.models.values()))
    @rule(data=st.data(), again=st.booleans())
    def settle_a_letter(self, data: st.DataObject, again: bool) -> None:
        """Retry or drop it, then once more, which finds nothing."""
        user = data.draw(st.sampled_from([user for user in USERS if self.models[user].letters]))
        model, log = self.models[user], self.backend.log
        letters = [each for each in self.wait(log.dead_letters(PARTITION)) if each.event.user == user]
        assert [letter.event.event_id for letter in letters] == model.letters
        act = log.retry_dead_letter if again else log.drop_dead_letter
        assert self.wait(act(letters[0]))
        assert not self.wait(act(letters[0]))
        event_id = model.letters.pop(0)
        if again:
            model.sequence += 1
            model.said[event_id] = model.said[event_id][0], model.sequence
            self._accept(user, event_id)

    @rule(data=st.data(), user=users)
    def rollback(self, data: st.DataObject, user: UserKey) -> None:
        model = self.models[user]
        known = [revision.name for revision in model.lineage]
        target = data.draw(st.sampled_from([*known, "000099-00000099"]))
        error = UserDeleted if model.deleted else None if target in known else RevisionNotFound
        self.expect(self.backend.users.rollback(user, target), error)
        model.current = model.current if error else target

    @rule(user=users)
    def reset(self, user: UserKey) -> None:
        model = self.models[user]
        self.expect(self.backend.users.reset(user), UserDeleted if model.deleted else None)
        model.current = "" if not model.deleted else model.current

    @precondition(lambda self: self.made > 3)
    @rule(user=users)
    def delete(self, user: UserKey) -> None:
        """Repeating gives the first receipt."""
        model = self.models[user]
        receipt = self.wait(self.backend.users.delete(user))
        assert self.wait(self.backend.users.delete(user)) == receipt
        if not model.deleted:
            counts = (receipt.events, receipt.dead_letters, receipt.revisions)
            assert counts == (len(model.pending), len(model.letters), len(model.lineage))
            self._remove(user, list(model.pending))
            self.models[user] = Model(deleted=True)

    @invariant()
    def the_state_is_the_models(self) -> None:
        for user, model in self.models.items():
            if model.deleted:
                self.expect(self.backend.users.get(user), UserDeleted)
                assert self.wait(self.backend.users.lineage(user, 100)) == []
                continue
            state = self.wait(self.backend.users.get(user))
            likes = sum(grade > 0 for grade, _ in model.said.values())
            assert (state.likes, state.dislikes) == (likes, len(model.said) - likes)
            assert (state.pending, state.dead_letters) == (len(model.pending), len(model.letters))
            assert (state.current.name if state.current else "") == model.current
            assert self.wait(self.backend.users.lineage(user, 100)) == model.lineage[::-1]
            standing = [*model.applied, *model.pending, *model.letters]
            assert len(set(standing)) == len(standing)
        stats = self.wait(self.backend.log.stats(PARTITION))
        letters = sum(len(model.letters) for model in self.models.values())
        assert (stats.backlog, stats.dead_letters) == (len(self.order), letters)

    def _trainer(self, data: st.DataObject) -> str:
        return str(data.draw(st.sampled_from(sorted(self.leases))))

    def _batch(self, trainer: str, user: UserKey, size: int, skip: int = 0) -> UserBatch:
        events = [event for event in self.read_by.get(trainer, ()) if event.user == user]
        return UserBatch(user, tuple(events[skip : skip + size]))

    def _is_pending(self, event: LoggedEvent) -> bool:
        """Not an earlier append of the same event, which has died and was retried since."""
        model = self.models[event.user]
        return event.event_id in model.pending and self.sequences[event.user, event.event_id] == event.sequence

    def _accept(self, user: UserKey, event_id: str) -> None:
        self.sequences[user, event_id] = self.models[user].sequence
        self.models[user].pending.append(event_id)
        self.order.append((user, event_id))
        self.attempts.pop((user, event_id), None)

    def _remove(self, user: UserKey, names: list[str]) -> None:
        for name in names:
            self.models[user].pending.remove(name)
            self.order.remove((user, name))
            self.attempts.pop((user, name), None)


async def _opened(open_backend: Callable[[], Backend]) -> Backend:
    return open_backend()
