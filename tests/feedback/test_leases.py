"""Ownership of partitions: one owner at a time, and epochs that only grow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from papa_serving.contracts.errors import Fenced
from papa_serving.contracts.feedback import Lease, UserBatch
from papa_serving.contracts.identity import UserKey

from tests.store.support import Backend, a_revision


async def test_a_free_partition_is_taken_once(backend: Backend) -> None:
    lease = await backend.log.acquire(1, "one", 30)
    assert lease is not None
    assert (lease.partition, lease.owner) == (1, "one")
    assert await backend.log.acquire(1, "two", 30) is None
    assert await backend.log.acquire(2, "two", 30) is not None


async def test_taking_again_keeps_the_epoch_and_prolongs(backend: Backend) -> None:
    first = await backend.log.acquire(0, "one", 10)
    second = await backend.log.acquire(0, "one", 60)
    assert first is not None
    assert second is not None
    assert second.epoch == first.epoch
    assert second.expires_at > first.expires_at + 30


async def test_every_change_of_owner_raises_the_epoch(backend: Backend) -> None:
    epochs = []
    for owner in ("one", "two", "one", "one"):
        lease = await backend.log.acquire(0, owner, 30)
        assert lease is not None
        epochs.append(lease.epoch)
        await backend.log.release(lease)
    assert epochs == sorted(set(epochs))


async def test_an_expired_lease_can_be_taken_by_another(backend: Backend) -> None:
    old = await backend.log.acquire(0, "one", 0.05)
    await asyncio.sleep(0.1)
    new = await backend.log.acquire(0, "two", 30)
    assert old is not None
    assert new is not None
    assert new.epoch > old.epoch
    with pytest.raises(Fenced):
        await backend.log.renew(old, 30)


async def test_an_expired_lease_of_the_same_name_gets_a_new_epoch(backend: Backend) -> None:
    old = await backend.log.acquire(0, "one", 0.05)
    await asyncio.sleep(0.1)
    new = await backend.log.acquire(0, "one", 30)
    assert old is not None
    assert new is not None
    assert new.epoch > old.epoch


async def test_renewal_keeps_others_out(backend: Backend) -> None:
    lease = await backend.log.acquire(0, "one", 0.2)
    assert lease is not None
    renewed = await backend.log.renew(lease, 60)
    assert renewed.expires_at > lease.expires_at + 30
    assert renewed.epoch == lease.epoch
    await asyncio.sleep(0.25)
    assert await backend.log.acquire(0, "two", 30) is None


async def test_an_expired_lease_that_nobody_took_can_be_renewed(backend: Backend) -> None:
    lease = await backend.log.acquire(0, "one", 0.05)
    assert lease is not None
    await asyncio.sleep(0.1)
    renewed = await backend.log.renew(lease, 30)
    assert await backend.log.acquire(0, "two", 30) is None
    assert renewed.epoch == lease.epoch


async def test_release_is_harmless_when_another_owns(backend: Backend) -> None:
    old = await backend.log.acquire(0, "one", 30)
    assert old is not None
    await backend.log.release(old)
    assert await backend.log.acquire(0, "two", 30) is not None
    await backend.log.release(old)
    assert await backend.log.acquire(0, "one", 30) is None


async def test_of_many_that_try_at_once_one_succeeds(backend: Backend) -> None:
    leases = await asyncio.gather(*(backend.log.acquire(3, f"owner {n}", 30) for n in range(20)))
    assert sum(lease is not None for lease in leases) == 1


Write = Callable[[Backend, Lease, UserBatch], Awaitable[object]]
WRITES: dict[str, Write] = {
    "renew": lambda backend, lease, batch: backend.log.renew(lease, 30),
    "read": lambda backend, lease, batch: backend.log.read(lease, "", 10),
    "begin_attempt": lambda backend, lease, batch: backend.log.begin_attempt(lease, batch),
    "commit": lambda backend, lease, batch: backend.log.commit(lease, batch, a_revision(1, "", batch)),
    "bury": lambda backend, lease, batch: backend.log.bury(lease, batch.events, "poison"),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("end", ["taken", "released"])
async def test_an_owner_whose_epoch_is_over_can_do_nothing(
    backend: Backend, user: UserKey, write: str, end: str
) -> None:
    await backend.append(user, "a", "b")
    old = await backend.own(user, "one", 0.05)
    batch = UserBatch(user, await backend.pending(old))
    if end == "released":
        await backend.log.release(old)
    else:
        await asyncio.sleep(0.1)
        await backend.own(user, "two")
    before = await backend.users.get(user)
    with pytest.raises(Fenced):
        await WRITES[write](backend, old, batch)
    new = await backend.own(user, "two")
    assert await backend.pending(new) == batch.events
    assert await backend.users.get(user) == before
