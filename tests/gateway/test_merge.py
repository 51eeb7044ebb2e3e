"""A guest becomes a member, over memory, Redis and Redis Cluster: each label once, in order, through any crash."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.contracts.attribution import KINDS, Attribution
from papa_serving.contracts.errors import LineageConflict, StorageUnavailable, UserDeleted
from papa_serving.contracts.feedback import FeedbackEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.feedback.entries import MERGES
from papa_serving.gateway import transfer
from papa_serving.gateway.backends import Backends, quotas_of
from papa_serving.gateway.transfer import Merger, labels_of
from papa_serving.settings import AttributionSettings, CatalogueSettings
from papa_serving.store.memory import MemoryRevisionStore
from papa_serving.store.redis_client import call
from papa_serving.store.redis_users import RedisUserDirectory
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import Trained

from papa.denoiser import Denoiser
from papa.revision_files import STATE_FILE, unpack
from tests.store.support import (  # noqa: F401 - fixtures
    Backend,
    OpenBackend,
    an_item,
    backend,
    event_id_quota,
    image_event,
    open_backend,
    redis_cluster,
    redis_server,
)
from tests.trainer.learning import denoiser, events_of, first_update, updater  # noqa: F401 - fixtures

GUEST, MEMBER = UserKey("shop", "guest-7"), UserKey("shop", "member")


class Failing:
    """Passes calls on until `left` have been made, and then fails once: a gateway that dies at any point."""

    def __init__(self, behind: Any, left: list[int]) -> None:
        self._behind, self._left = behind, left

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)
        if not callable(method) or name in ("holdings", "watch"):
            return method

        async def call(*given: Any, **named: Any) -> Any:
            self._left[0] -= 1
            if self._left[0] == 0:
                raise StorageUnavailable("cut")
            return await method(*given, **named)

        return call


def merger(backend: Backend, revisions: MemoryRevisionStore, dies_at: int = 0) -> Merger:  # noqa: F811
    left = [dies_at]
    parts = (backend.log, backend.users, backend.items, revisions)
    quotas, catalogues = quotas_of(backend.settings), MemoryCatalogues(CatalogueSettings())
    left_alone = quotas, catalogues, backend.activity, backend.seen
    return Merger(Backends(*(Failing(part, left) for part in parts), *left_alone))


async def said_by(backend: Backend, user: UserKey) -> list[tuple[bytes, float]]:  # noqa: F811
    events = await backend.log.pending(user)
    return [(event.sample, event.grade) for event in events]


async def a_guest(backend: Backend) -> None:  # noqa: F811
    """Two items shown, three labels, the second of which died."""
    await backend.items.put(GUEST, [an_item("seen"), an_item("liked")])
    events = [
        FeedbackEvent("1", GUEST, 1.0, item_id="liked"),
        image_event(GUEST, "2", -1.0, b"second"),
        image_event(GUEST, "3", 0.5, b"third"),
    ]
    await backend.log.append(events)
    lease = await backend.own(GUEST)
    await backend.log.bury(lease, (await backend.pending(lease, GUEST))[1:2], "a test")
    await backend.log.release(lease)


ALL = [(b"sample of liked", 1.0), (b"second", -1.0), (b"third", 0.5)]


async def test_labels_and_items_go_over_and_the_guest_is_gone(backend: Backend) -> None:  # noqa: F811
    revisions = MemoryRevisionStore()
    await a_guest(backend)
    await backend.log.append([image_event(MEMBER, "1", 1.0, b"own")])
    receipt = await merger(backend, revisions).merge(GUEST, MEMBER)
    assert (receipt.events, receipt.dead_letters, receipt.items) == (2, 1, 2)
    assert await said_by(backend, MEMBER) == [(b"own", 1.0), *ALL]
    assert ((await backend.users.get(MEMBER)).likes, (await backend.users.get(MEMBER)).dislikes) == (3, 1)
    with pytest.raises(UserDeleted):
        await backend.users.get(GUEST)
    (late,) = await backend.log.append([FeedbackEvent("late", MEMBER, 1.0, item_id="seen")])
    assert late.error is None
    assert await merger(backend, revisions).merge(GUEST, MEMBER) == receipt
    assert len(await said_by(backend, MEMBER)) == 5
    with pytest.raises(UserDeleted):
        await merger(backend, revisions).merge(GUEST, UserKey("shop", "another"))


async def test_what_the_guest_was_shown_and_did_goes_over_once(backend: Backend) -> None:  # noqa: F811
    await a_guest(backend)
    bought = FeedbackEvent("b", GUEST, 1.0, item_id="liked", attribution=Attribution("purchase", "g1"))
    await backend.log.append([bought])
    await backend.activity.add(GUEST, "impression", b'{"generation_id":"g1"}')
    for _ in range(2):
        await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    for kind in KINDS:
        (record,) = [json.loads(each.data) for each in await backend.activity.kept(MEMBER, kind)]
        assert record["generation_id"] == "g1"


@pytest.mark.parametrize("dies_at", range(1, 13))
async def test_a_merge_that_died_anywhere_is_finished_by_the_next(backend: Backend, dies_at: int) -> None:  # noqa: F811
    revisions = MemoryRevisionStore()
    await a_guest(backend)
    try:
        await merger(backend, revisions, dies_at).merge(GUEST, MEMBER)
    except StorageUnavailable:
        await merger(backend, revisions).merge(GUEST, MEMBER)
    assert await said_by(backend, MEMBER) == ALL
    with pytest.raises(UserDeleted):
        await backend.users.get(GUEST)


async def test_a_like_that_comes_in_between_is_not_lost(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    await a_guest(backend)
    append, late = backend.log.append, [image_event(GUEST, "4", 1.0, b"late")]

    async def interrupted(events: Any) -> Any:
        results = await append(events)
        if late:
            await append([late.pop()])
        return results

    monkeypatch.setattr(backend.log, "append", interrupted)
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    assert await said_by(backend, MEMBER) == [*ALL, (b"late", 1.0)]


async def test_what_is_taken_back_between_two_attempts_is_taken_back_from_the_member(
    open_backend: OpenBackend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the labels of the second attempt are so many that the member's earlier ids are forgotten."""
    monkeypatch.setattr(transfer, "EVENTS_PAGE", 2)
    backend, revisions = open_backend(store=event_id_quota(4)), MemoryRevisionStore()  # noqa: F811
    await backend.append(GUEST, "1")
    with pytest.raises(StorageUnavailable):
        await merger(backend, revisions, dies_at=10).merge(GUEST, MEMBER)
    assert len(await said_by(backend, MEMBER)) == 1
    await backend.commit(MEMBER, 1)
    await backend.commit(GUEST, 1)
    await backend.log.append([FeedbackEvent("undo", GUEST, 0.0, cancels="1")])
    await backend.append(GUEST, *(f"later {number}" for number in range(8)))
    await merger(backend, revisions).merge(GUEST, MEMBER)
    assert [event.cancels for event in await backend.log.pending(MEMBER)] == [1, *[0] * 8]
    assert (await backend.users.get(MEMBER)).likes == 8


@pytest.mark.parametrize("seed", range(5))
async def test_each_label_counts_once_whatever_happens_between_attempts(
    open_backend: OpenBackend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """The member says so much meanwhile that the ids of the labels that came before are forgotten."""
    chance = Random(seed)
    monkeypatch.setattr(transfer, "EVENTS_PAGE", chance.randint(1, 3))
    backend, revisions = open_backend(store=event_id_quota(4)), MemoryRevisionStore()  # noqa: F811
    parent, learnt = "", list[bytes]()
    said = [image_event(GUEST, f"{number}", image=b"guest %d" % number) for number in range(9)]
    await backend.log.append(said[:6])
    for attempt in range(1, 5):
        with suppress(StorageUnavailable):
            await merger(backend, revisions, dies_at=chance.randint(9, 19)).merge(GUEST, MEMBER)
            break
        await backend.log.append(said[6 : 5 + attempt])
        for number in range(3):
            await backend.append(MEMBER, *(f"own {attempt} {number} {each}" for each in range(2)))
            learnt += [sample for sample, _ in await said_by(backend, MEMBER)]
            parent = (await backend.commit(MEMBER, attempt * 3 + number, parent)).name
    else:
        await merger(backend, revisions).merge(GUEST, MEMBER)
    learnt += [sample for sample, _ in await said_by(backend, MEMBER)]
    labels = [sample for sample in learnt if sample.startswith(b"guest")]
    assert attempt > 1 and labels == [event.image for event in said[: len(labels)]] and len(labels) >= 6


async def cut(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """An attempt that brings all labels and dies before the guest is deleted."""
    with monkeypatch.context() as patched:
        patched.setattr(backend.users, "delete", Failing(backend.users, [1]).delete)
        with pytest.raises(StorageUnavailable):
            await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)


async def test_a_dead_letter_that_is_retried_between_two_attempts_counts_once(
    backend: Backend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where it is retried twice, and applied after that."""
    await a_guest(backend)
    await cut(backend, monkeypatch)
    lease = await backend.own(GUEST)
    for number in range(2):
        (letter,) = await backend.log.dead_letters(lease.partition)
        assert await backend.log.retry_dead_letter(letter)
        if number == 0:
            await backend.log.bury(lease, (await backend.pending(lease, GUEST))[-1:], "again")
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    assert await said_by(backend, MEMBER) == ALL
    assert ((await backend.users.get(MEMBER)).likes, (await backend.users.get(MEMBER)).dislikes) == (2, 1)


async def test_what_is_taken_back_between_two_attempts_is_taken_back_wherever_it_was(
    backend: Backend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waited, was dead, or was retried before."""
    await a_guest(backend)
    await backend.log.append([image_event(GUEST, "4", 1.0, b"fourth")])
    lease = await backend.own(GUEST)
    await backend.log.bury(lease, (await backend.pending(lease, GUEST))[-1:], "a test")
    await cut(backend, monkeypatch)
    letters = {letter.event.event_id: letter for letter in await backend.log.dead_letters(lease.partition)}
    assert await backend.log.retry_dead_letter(letters["4"])
    for number in ("1", "2", "4"):
        (result,) = await backend.log.append([FeedbackEvent(f"undo {number}", GUEST, 0.0, cancels=number)])
        assert result.error is None
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    assert await said_by(backend, MEMBER) == [(b"third", 0.5)]
    assert ((await backend.users.get(MEMBER)).likes, (await backend.users.get(MEMBER)).dislikes) == (1, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_the_member_has_what_the_guest_said_at_last_whatever_happened_between_attempts(
    backend: Backend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Labels, dead letters, retries and taking back, in any order, between attempts that die."""
    chance, given = Random(seed), dict[str, bytes]()
    lease = await backend.own(GUEST)
    for attempt in range(3):
        for number in range(8):
            act = chance.choice(("like", "like", "bury", "retry", "take back"))
            waiting = await backend.log.pending(GUEST)
            letters = await backend.log.dead_letters(lease.partition)
            if act == "like":
                name = f"{attempt}-{number}"
                given[name] = name.encode()
                await backend.log.append([image_event(GUEST, name, image=given[name])])
            elif act == "bury" and waiting:
                await backend.log.bury(lease, [chance.choice(waiting)], "a test")
            elif act == "retry" and letters:
                assert await backend.log.retry_dead_letter(chance.choice(letters))
            elif act == "take back" and given:
                name = chance.choice(sorted(given))
                del given[name]
                await backend.log.append([FeedbackEvent(f"undo {name}", GUEST, 0.0, cancels=name)])
        if attempt < 2:
            await cut(backend, monkeypatch)
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    assert sorted(sample for sample, _ in await said_by(backend, MEMBER)) == sorted(given.values())
    assert (await backend.users.get(MEMBER)).likes == len(given)


async def test_a_label_that_moves_while_labels_are_read_is_not_lost(
    backend: Backend,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead letter is retried after the waiting events were read, and before the letters are."""
    await a_guest(backend)
    dead_letters, moves = backend.log.dead_letters, [1]

    async def moving(*given: Any) -> Any:
        if moves and moves.pop():
            (letter,) = await dead_letters(*given)
            assert await backend.log.retry_dead_letter(letter)
        return await dead_letters(*given)

    monkeypatch.setattr(backend.log, "dead_letters", moving)
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    assert sorted(await said_by(backend, MEMBER)) == sorted(ALL)


async def test_a_member_keeps_the_newest_activity_of_both(open_backend: OpenBackend) -> None:  # noqa: F811
    backend = open_backend(attribution=AttributionSettings(events=3))  # noqa: F811
    for user in (GUEST, MEMBER):
        for number in range(3):
            view = FeedbackEvent(f"{user.user} {number}", user, 0.0, item_id="i", attribution=Attribution("view"))
            await backend.log.append([view])
    await merger(backend, MemoryRevisionStore()).merge(GUEST, MEMBER)
    kept = [json.loads(each.data)["event_id"] for each in await backend.activity.kept(MEMBER, "event")]
    assert kept == [f"member {number}" for number in range(3)]


async def test_only_the_newest_merges_are_remembered(backend: Backend) -> None:  # noqa: F811
    """Each as one word: a member of many guests needs no more room."""
    for number in range(MERGES + 2):
        guest = UserKey("shop", f"guest-{number}")
        await backend.log.append([image_event(guest, "1", image=b"guest %d" % number)])
        await merger(backend, MemoryRevisionStore()).merge(guest, MEMBER)
    assert len(await said_by(backend, MEMBER)) == MERGES + 2
    if isinstance(backend.users, RedisUserDirectory):
        words = await call(backend.users._client, "HGET", backend.users._keys.user(MEMBER).state, "merged")
        assert len(words.split()) == MERGES


async def test_a_guest_becomes_one_member_only(backend: Backend) -> None:  # noqa: F811
    await a_guest(backend)
    await backend.users.begin_merge(GUEST, MEMBER)
    with pytest.raises(LineageConflict, match="has begun"):
        await merger(backend, MemoryRevisionStore()).merge(GUEST, UserKey("shop", "another"))


async def test_what_was_learnt_goes_over_too(
    backend: Backend,  # noqa: F811
    updater: PapaUpdater,  # noqa: F811
    denoiser: Denoiser,  # noqa: F811
) -> None:
    revisions = MemoryRevisionStore()
    events = events_of(GUEST, 3)
    await backend.log.append([image_event(GUEST, e.event_id, e.grade, e.sample) for e in events])
    lease = await backend.own(GUEST)
    batch = UserBatch(GUEST, await backend.pending(lease, GUEST))
    (trained,) = updater.update([first_update(GUEST, 3)], 1.0)
    assert isinstance(trained, Trained)
    revision = Revision("000001-aaaaaaaa", "", 1.0, trained.sha256, 3, 3)
    await revisions.put(GUEST, revision.name, trained.files)
    await backend.log.commit(lease, batch, revision)
    await backend.log.release(lease)
    replay = unpack(trained.files, denoiser.layout, denoiser.hashes, trained.sha256).replay
    assert [label.grade for label in labels_of(trained.files[STATE_FILE])] == replay.grades.tolist()
    await merger(backend, revisions).merge(GUEST, MEMBER)
    assert await said_by(backend, MEMBER) == [(event.sample, event.grade) for event in events]
    assert [holding async for holding in revisions.holdings()] == []
