"""The trainer in traces: an update links to every like that it consumed, and its revision says which it was."""

from __future__ import annotations

from papa_serving import tracing
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.trace import ids
from papa_serving.store.redis_client import call, connect
from papa_serving.store.redis_keys import Keys
from papa_serving.trainer.updater import Refused

from tests.tracing.collector import Collector, Spanned
from tests.trainer.support import PARTITIONS, TallyUpdater, World, until


class Refusing(TallyUpdater):
    """Says no to the first attempt."""

    def update(self, updates, step_scale):  # type: ignore[no-untyped-def]
        trained = super().update(updates, step_scale)
        return [Refused("norm", "too far")] if len(self.updates) == 1 else trained


async def say(world: World, user: UserKey, event_id: str) -> Spanned | tuple[str, str]:
    """One like, in a trace of its own; its (trace id, span id)."""
    with tracing.span("like", "producer", parent="") as span:
        await world.log.append([FeedbackEvent(event_id, user, 1.0, image=b"x", traceparent=span.traceparent)])
    _, trace_id, span_id, _ = span.traceparent.split("-")
    return trace_id, span_id


async def test_an_update_links_to_its_likes_and_its_revision_to_it(
    redis_world: World, user: UserKey, recording: Collector
) -> None:
    likes = [await say(redis_world, user, f"e{number}") for number in range(3)]
    async with redis_world.trainer(TallyUpdater()):
        await until(lambda: redis_world.has_revisions(user, 1))
    tracing.end(5.0)
    update = recording.named("update")
    assert set(update.links) == set(likes)
    assert update.parent == "" and update.trace_id not in {trace_id for trace_id, _ in likes}
    children = {span.name for span in recording.spans if span.parent == update.span_id}
    assert children == {"train", "write revision", "commit"}
    (revision,) = await redis_world.lineage(user)
    assert ids(revision.traceparent) == update.identity
    assert update.attributes["papa.revision"] == revision.name
    assert user.user not in str(recording.spans) and user.digest not in str(recording.spans)


async def test_every_attempt_is_an_update_of_its_own(redis_world: World, user: UserKey, recording: Collector) -> None:
    like = await say(redis_world, user, "e1")
    async with redis_world.trainer(Refusing()):
        await until(lambda: redis_world.has_revisions(user, 1))
    tracing.end(5.0)
    updates = [span for span in recording.spans if span.name == "update"]
    assert [span.error for span in updates] == ["REFUSED_NORM", ""]
    assert all(span.links == (like,) for span in updates)


async def test_a_dead_letter_links_to_its_like(redis_world: World, user: UserKey, recording: Collector) -> None:
    class Flawed(TallyUpdater):
        def flaw(self, event):  # type: ignore[no-untyped-def]
            return "unreadable"

    like = await say(redis_world, user, "e1")
    async with redis_world.trainer(Flawed()):
        await until(lambda: redis_world.nothing_pending(user))
    tracing.end(5.0)
    burial = recording.named("bury")
    assert (burial.links, burial.error) == ((like,), "sample")


async def test_entries_without_a_context_or_with_a_bad_one_are_read(redis_world: World, user: UserKey) -> None:
    """As earlier versions, or somebody else, may have left them; also on their way back from the dead letters."""
    partition = Keys(redis_world.settings.redis.prefix, PARTITIONS).partitions[user.partition(PARTITIONS)]
    client = connect(redis_world.settings.redis)
    await redis_world.say(user, "e1", "e2")
    lease = await redis_world.log.acquire(user.partition(PARTITIONS), "test", 30.0)
    assert lease is not None
    await redis_world.log.bury(lease, await redis_world.log.read(lease, "", 10), "to see them again")
    for letter, context in zip(await redis_world.dead_letters(user), ([], ["c", "x" * 500]), strict=True):
        ((_, fields),) = await call(client, "XRANGE", partition.dead, letter.letter_id, letter.letter_id)
        kept = [each for name, value in fields.items() if name != b"c" for each in (name, value)]
        await call(client, "XDEL", partition.dead, letter.letter_id)
        await call(client, "XADD", partition.dead, "*", *kept, *context)
    await client.aclose()
    for letter in await redis_world.dead_letters(user):
        assert letter.event.traceparent == ""
        assert await redis_world.log.retry_dead_letter(letter)
    events = await redis_world.log.read(lease, "", 10)
    assert [(event.event_id, event.traceparent) for event in events] == [("e1", ""), ("e2", "")]
