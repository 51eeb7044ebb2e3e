"""Partitions: shared without talking, kept during long updates, handed on."""

import asyncio
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.feedback import Lease, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.trainer import loop
from papa_serving.trainer.loop import TrainerLoop
from papa_serving.trainer.ownership import fair_share

from tests.trainer.support import PATIENCE, Pause, TallyUpdater, World, event_ids, until

MEMBERS = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(members=MEMBERS, partitions=st.integers(1, 64))
def test_every_partition_is_in_exactly_one_share(members: set[str], partitions: int) -> None:
    shares = [fair_share(member, members, partitions) for member in members]
    assert sorted(partition for share in shares for partition in share) == list(range(partitions))


@settings(max_examples=25, deadline=None)
@given(members=MEMBERS, newcomer=st.text(min_size=1, max_size=8))
def test_a_newcomer_only_takes(members: set[str], newcomer: str) -> None:
    for member in members - {newcomer}:
        before, after = fair_share(member, members, 64), fair_share(member, {*members, newcomer}, 64)
        assert after <= before
        assert before - after <= fair_share(newcomer, members, 64)


def test_shares_are_about_even() -> None:
    members = [f"trainer-{number}" for number in range(4)]
    sizes = [len(fair_share(member, members, 1024)) for member in members]
    assert min(sizes) > 200 and max(sizes) < 312


async def test_two_members_share_and_the_last_one_takes_all(world: World, users: list[UserKey]) -> None:
    everything = range(world.log.partitions)
    ours, theirs = (fair_share(name, ["ours-1", "theirs-1"], len(everything)) for name in ("ours-1", "theirs-1"))
    assert ours and theirs
    updaters = TallyUpdater(), TallyUpdater()
    async with world.trainer(updaters[0], "ours-1"):
        await until(lambda: _owns(world, "ours-1", frozenset(everything)))
        async with world.trainer(updaters[1], "theirs-1"):
            await until(lambda: _owns(world, "theirs-1", theirs))
            for user in users:
                await world.say(user, *event_ids(3))
            await until(lambda: world.nothing_pending(*users))
        await until(lambda: _owns(world, "ours-1", frozenset(everything)))
        for user in users:
            await world.say(user, *event_ids(3, start=4))
        await until(lambda: world.nothing_pending(*users))
    for user in users:
        assert await world.applied(user) == [event_ids(3), event_ids(3, start=4)]
        await world.assert_chain(user)
    trained = {update.batch.user for updates, _ in updaters[1].updates for update in updates}
    assert {user.partition(world.log.partitions) for user in trained} <= theirs


async def test_leases_are_renewed_while_an_update_runs(world: World, user: UserKey) -> None:
    pause = Pause()
    partition = user.partition(world.log.partitions)
    await world.say(user, *event_ids(3))
    async with world.trainer(TallyUpdater(pause), lease=1.5):
        await until(pause.is_reached)
        for _ in range(22):
            assert await world.log.acquire(partition, "a stranger", 1.5) is None
            await asyncio.sleep(0.1)
        pause.go_on.set()
        await until(lambda: world.has_revisions(user, 1))


async def test_leases_are_renewed_while_samples_are_checked(world: World, user: UserKey) -> None:
    """To check a sample may mean to encode its prompt, and hundreds of them may be read at once."""
    reached, go_on = threading.Event(), threading.Event()

    class Thorough(TallyUpdater):
        def flaw(self, event: LoggedEvent) -> str:
            reached.set()
            assert go_on.wait(PATIENCE)
            return super().flaw(event)

    partition = user.partition(world.log.partitions)
    await world.say(user, *event_ids(3))
    async with world.trainer(Thorough(), lease=1.5):
        await until(lambda: asyncio.sleep(0, reached.is_set()))
        for _ in range(22):
            assert await world.log.acquire(partition, "a stranger", 1.5) is None
            await asyncio.sleep(0.1)
        go_on.set()
        await until(lambda: world.has_revisions(user, 1))


async def test_a_partition_that_belongs_to_a_newcomer_is_kept_until_its_update_is_committed(
    world: World, user: UserKey
) -> None:
    pause = Pause()
    partition = user.partition(world.log.partitions)
    newcomer = next(
        name for name in map(str, range(100)) if partition in fair_share(name, ["old"], world.log.partitions)
    )
    await world.say(user, *event_ids(3))
    old = TallyUpdater(pause)
    async with world.trainer(old, "old"):
        await until(pause.is_reached)
        async with world.trainer(TallyUpdater(), newcomer):
            await until(lambda: _sees(world, newcomer))
            await asyncio.sleep(3 * world.settings.trainer.lease / 10)
            assert await world.lineage(user) == []
            pause.go_on.set()
            await until(lambda: world.has_revisions(user, 1))
            await until(lambda: _owns(world, newcomer, frozenset({partition})))
    assert len(old.updates) == 1
    assert await world.applied(user) == [event_ids(3)]


async def test_a_stop_abandons_a_long_update_and_gives_the_leases_back(world: World, user: UserKey) -> None:
    pause = Pause()
    await world.say(user, *event_ids(3))
    async with world.trainer(TallyUpdater(pause), "leaving", lease=3600.0, grace_seconds=0.05):
        await until(pause.is_reached)
    for partition in range(world.log.partitions):
        assert await world.log.acquire(partition, "successor", 0.01) is not None
    assert await world.log.heartbeat("successor", 0.01) == ["successor"]
    async with world.trainer(TallyUpdater(), "successor"):
        await until(lambda: world.has_revisions(user, 1))
        pause.go_on.set()
    assert await world.applied(user) == [event_ids(3)]


async def test_a_stop_lets_a_short_update_be_committed(world: World, user: UserKey) -> None:
    pause = Pause()
    await world.say(user, *event_ids(3))
    async with world.trainer(TallyUpdater(pause), grace_seconds=20.0) as trainer:
        await until(pause.is_reached)
        trainer.stop()
        threading.Timer(0.1, pause.go_on.set).start()
    assert await world.applied(user) == [event_ids(3)]


async def test_a_stop_is_heard_whatever_runs(redis_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it meets a Redis command, in which a cancellation may be lost."""
    monkeypatch.setattr(loop, "OBSERVATION_SECONDS", 0.001)
    async with asyncio.timeout(PATIENCE):
        for number in range(10):
            async with redis_world.trainer(TallyUpdater(), f"member-{number}"):
                await asyncio.sleep(0.03 + 0.001 * number)


async def test_what_is_unexpected_ends_the_trainer_and_gives_the_leases_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(after: Mapping[int, str]) -> set[int]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(world.log, "news", broken)
    trainer = TrainerLoop("member", world.log, world.users, world.revisions, TallyUpdater(), world.settings.trainer)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await trainer.run()
    for partition in range(world.log.partitions):
        assert await world.log.acquire(partition, "successor", 30.0) is not None


async def test_a_lease_that_is_granted_while_the_trainer_ends_is_given_back_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, granted, answered = world.log.acquire, asyncio.Event(), asyncio.Event()

    async def slowly(partition: int, member: str, seconds: float) -> Lease | None:
        lease = await acquire(partition, member, seconds)
        granted.set()
        await answered.wait()
        return lease

    monkeypatch.setattr(world.log, "acquire", slowly)
    async with world.trainer(TallyUpdater(), "leaving", lease=3600.0, grace_seconds=0.05):
        await granted.wait()
        asyncio.get_running_loop().call_later(0.3, answered.set)  # after the end was asked for
    for partition in range(world.log.partitions):
        assert await acquire(partition, "successor", 0.01) is not None


async def test_storage_that_fails_for_a_while_only_delays(
    world: World, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, failures = world.log.renew, [StorageUnavailable("away")] * 5

    async def failing(lease: Lease, seconds: float) -> Lease:
        if failures:
            raise failures.pop()
        return await renew(lease, seconds)

    monkeypatch.setattr(world.log, "renew", failing)
    async with world.trainer(TallyUpdater()):
        await until(lambda: _empty(failures))
        await world.say(user, *event_ids(3))
        await until(lambda: world.has_revisions(user, 1))


async def _owns(world: World, member: str, partitions: frozenset[int]) -> bool:
    """Whether nobody else could take them; asking as the member itself changes nothing but the expiry."""
    seconds = world.settings.trainer.lease
    return all([await world.log.acquire(partition, member, seconds) for partition in partitions])


async def _sees(world: World, member: str) -> bool:
    return member in await world.log.heartbeat("old", world.settings.trainer.lease)


async def _empty(rest: list[StorageUnavailable]) -> bool:
    return not rest
