"""Many writers, two owners, one order."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from papa_serving.contracts.errors import Fenced
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess

from tests.store.support import PARTITIONS, Backend, a_revision, image_event, open_redis, redis_settings

WRITERS = 16


async def test_sixteen_writers_of_one_user_get_one_order(
    redis_server: RedisProcess, user: UserKey, tmp_path: Path
) -> None:
    settings = redis_settings(redis_server.url, tmp_path)
    gateways = [open_redis(settings) for _ in range(4)]

    async def write(writer: int) -> dict[str, int]:
        sequences = {}
        for n in range(15):
            results = await gateways[writer % 4].log.append([image_event(user, f"{writer}.{n}.{k}") for k in range(3)])
            sequences |= {result.event_id: result.sequence for result in results}
        return sequences

    accepted = await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    for sequences in accepted:
        assert list(sequences.values()) == sorted(sequences.values())
    by_sequence = {sequence: event for sequences in accepted for event, sequence in sequences.items()}
    assert sorted(by_sequence) == list(range(1, WRITERS * 45 + 1))
    events = await gateways[0].pending(await gateways[0].own(user))
    assert [(event.sequence, event.event_id) for event in events] == sorted(by_sequence.items())
    for gateway in gateways:
        await gateway.close()


async def test_a_reader_that_goes_on_while_others_write_skips_nothing(redis_backend: Backend) -> None:
    users = [o for n in range(100) if (o := UserKey("shop", str(n))).partition(PARTITIONS) == 0][:8]
    lease = await redis_backend.own(users[0])
    seen: list[str] = []
    writing = True

    async def write(user: UserKey) -> None:
        for n in range(60):
            await redis_backend.log.append([image_event(user, f"{user.user}.{n}")])

    async def read() -> None:
        after = ""
        while True:
            last_round = not writing
            for event in await redis_backend.log.read(lease, after, 7):
                seen.append(event.event_id)
                after = event.entry_id
            if last_round and await redis_backend.log.news({0: after}) == set():
                return

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(user) for user in users))
    writing = False
    await reader
    assert len(seen) == len(set(seen)) == 8 * 60
    for user in users:
        mine = [event for event in seen if event.startswith(f"{user.user}.")]
        assert mine == [f"{user.user}.{n}" for n in range(60)]


async def test_of_two_that_believe_to_own_a_partition_one_commits(
    redis_server: RedisProcess, user: UserKey, tmp_path: Path
) -> None:
    settings = redis_settings(redis_server.url, tmp_path)
    first, second = open_redis(settings), open_redis(settings)
    await first.append(user, "a", "b")
    stale = await first.own(user, "first", 0.05)
    batch = UserBatch(user, await first.pending(stale))
    await asyncio.sleep(0.1)
    current = await second.own(user, "second")
    theirs = UserBatch(user, await second.pending(current))
    outcomes = await asyncio.gather(
        first.log.commit(stale, batch, a_revision(1, "", batch)),
        second.log.commit(current, theirs, a_revision(2, "", theirs)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] is True
    (only,) = await first.users.lineage(user, 10)
    assert only == a_revision(2, "", theirs)
    with pytest.raises(Fenced):
        await first.log.bury(stale, batch.events, "poison")
    assert await first.log.dead_letters(current.partition) == []
    await first.close()
    await second.close()


async def test_commits_race_with_deletions_and_leave_nothing_behind(redis_backend: Backend) -> None:
    users = [UserKey("shop", f"racer {n}") for n in range(30)]
    batches = []
    for user in users:
        await redis_backend.append(user, "a", "b")
        lease = await redis_backend.own(user)
        batches.append((lease, UserBatch(user, await redis_backend.pending(lease, user))))
    await asyncio.gather(
        *(redis_backend.log.commit(lease, batch, a_revision(1, "", batch)) for lease, batch in batches),
        *(redis_backend.users.delete(user) for user in users),
        *(redis_backend.log.append([image_event(user, "c")]) for user in users),
        return_exceptions=True,
    )
    for lease, batch in batches:
        assert await redis_backend.pending(lease, batch.user) == ()
        assert await redis_backend.users.lineage(batch.user, 10) == []


async def test_calls_that_are_abandoned_do_not_mix_up_the_answers_of_others(redis_backend: Backend) -> None:
    """A gateway cancels a call when its caller goes away; its connection must not be used with an answer pending."""
    users = [UserKey("shop", str(n)) for n in range(5)]
    numbers = random.Random(7)
    for n in range(150):
        calls = [asyncio.create_task(redis_backend.log.append([image_event(user, f"{n}")])) for user in users] + [
            asyncio.create_task(redis_backend.users.get(user)) for user in users
        ]
        await asyncio.sleep(numbers.random() * 0.003)
        for call in numbers.sample(calls, 3):
            call.cancel()
        for user, answer in zip(users, await asyncio.gather(*calls[5:], return_exceptions=True), strict=True):
            assert isinstance(answer, asyncio.CancelledError) or answer.user == user
        for answer in await asyncio.gather(*calls[:5], return_exceptions=True):
            assert isinstance(answer, asyncio.CancelledError) or answer[0].event_id == str(n)
    for user in users:
        await redis_backend.log.append([image_event(user, str(n)) for n in range(150)])
        events = await redis_backend.pending(await redis_backend.own(user), user)
        assert sorted(int(event.event_id) for event in events) == list(range(150))
