"""The gateway on a real redis-server and a real folder: every RPC that touches storage, and an outage."""

from __future__ import annotations

import asyncio
import io
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import StoredItem
from papa_serving.contracts.revisions import Revision
from papa_serving.contracts.samples import pack_sample, unpack_sample
from papa_serving.gateway.backends import Backends, open_backends
from papa_serving.local.redis_process import find_redis_server
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2, user_pb2
from PIL import Image

from tests.gateway.support.doubles import GREY
from tests.gateway.support.service import Service, refusal
from tests.ports import free_port

ALICE, KEY = types_pb2.User(user="alice"), UserKey("default", "alice")
PARTITIONS = 4
Event = feedback_pb2.FeedbackEvent


class Redis:
    """A durable redis-server that may end and come back on its port.

    Started without code between fork and exec, which gRPC's threads in this process would not survive.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes", "save": ""}
        command = [
            find_redis_server(),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
async def stored(redis: Redis, tmp_path: Path, unstarted: Service) -> AsyncIterator[Service]:
    settings = Settings(
        data_dir=tmp_path,
        redis=RedisSettings(url=redis.url, socket_timeout=1.0),
        feedback=FeedbackSettings(partitions=PARTITIONS),
    )
    backends = open_backends(settings)
    unstarted.log, unstarted.users = backends.log, backends.users  # type: ignore[assignment]
    unstarted.items, unstarted.revisions = backends.items, backends.revisions  # type: ignore[assignment]
    async with asyncio.timeout(30):
        while not await announced(backends):  # noqa: ASYNC110 - another process starts
            await asyncio.sleep(0.05)
    sample = pack_sample(np.zeros(GREY.image_shape, dtype=np.uint8))
    await backends.items.put(KEY, [StoredItem(f"i{i}", sample, "", "generation", i) for i in range(3)])
    await unstarted.start()
    yield unstarted


async def announced(backends: Backends) -> bool:
    """Whether the server is up already; then the backbone is known."""
    try:
        await backends.items.publish_backbone(GREY)
    except StorageUnavailable:
        return False
    return True


def like(item_id: str, event_id: str = "") -> Event:
    return Event(event_id=event_id or f"e-{item_id}", user=ALICE, item_id=item_id, signal=feedback_pb2.SIGNAL_LIKE)


async def commit(service: Service) -> Revision:
    """Commits all pending events, as a trainer does."""
    partition = KEY.partition(PARTITIONS)
    lease = await service.log.acquire(partition, "trainer", 30)
    assert lease is not None
    events = tuple(await service.log.read(lease, "", 100))
    made = Revision("000001-aa", "", 1_700_000_000.0, "ab" * 32, len(events), len(events), 1, len(events))
    await service.revisions.put(KEY, made.name, {"manifest.json": b"{}"})
    assert await service.log.commit(lease, UserBatch(KEY, events), made)
    return made


async def test_from_a_like_to_a_deletion(stored: Service) -> None:
    watch = aiter(stored.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE)))
    assert (await anext(watch)).state.likes == 0

    batch = feedback_pb2.SubmitFeedbackRequest(events=[like("i0"), like("foreign")])
    first, second = (await stored.feedback.SubmitFeedback(batch)).outcomes
    assert (first.ack.sequence, second.error.reason) == (1, "ITEM_NOT_FOUND")
    assert (await stored.feedback.SubmitFeedback(batch)).outcomes[0].ack.duplicate

    picture = io.BytesIO()
    Image.new("RGB", (100, 100), "white").save(picture, "WEBP")
    image = feedback_pb2.CatalogueImage(data=picture.getvalue())
    stream = [like("i1"), Event(), Event(event_id="picture", user=ALICE, image=image, grade=-0.5)]
    call = stored.feedback.StreamFeedback(iter([feedback_pb2.StreamFeedbackRequest(event=each) for each in stream]))
    outcomes = [response.outcome async for response in call]
    assert [outcome.ack.sequence for outcome in outcomes] == [2, 0, 3]
    assert outcomes[1].error.reason == "INVALID_REQUEST"

    lease = await stored.log.acquire(KEY.partition(PARTITIONS), "trainer", 30)
    assert lease is not None
    last = (await stored.log.read(lease, "", 100))[-1]
    assert (last.grade, unpack_sample(last.sample).shape) == (-0.5, (1, 28, 28))

    await commit(stored)
    async for response in watch:
        if response.state.HasField("current_revision"):
            break
    assert (response.state.likes, response.state.dislikes, response.state.pending_events) == (2, 1, 0)
    page = await stored.user.ListRevisions(user_pb2.ListRevisionsRequest(user=ALICE))
    assert [each.revision for each in page.revisions] == ["000001-aa"]
    refused = await refusal(stored.user.ListRevisions(user_pb2.ListRevisionsRequest(user=ALICE, page_token="x")))
    assert set(refused.violations) == {"page_token"}
    assert not (await stored.user.ResetUser(user_pb2.ResetUserRequest(user=ALICE))).state.HasField("current_revision")
    rollback = user_pb2.RollbackAdapterRequest(user=ALICE, revision="000001-aa")
    assert (await stored.user.RollbackAdapter(rollback)).state.current_revision.revision == "000001-aa"

    receipt = await stored.user.DeleteUser(user_pb2.DeleteUserRequest(user=ALICE))
    assert receipt.revisions == 1
    assert await stored.revisions.delete_user(KEY) == 0, "the files are gone"
    assert (await refusal(watch)).reason == "USER_DELETED"
    refused = await refusal(stored.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[like("i2")])))
    assert refused.reason == "USER_DELETED"


async def test_an_outage_is_retryable_and_ends(stored: Service, redis: Redis) -> None:
    feedback, submit = "papa.serving.v1.FeedbackService", feedback_pb2.SubmitFeedbackRequest(events=[like("i0")])
    await stored.until_serving(feedback)
    redis.stop()
    refused = await refusal(stored.feedback.SubmitFeedback(submit))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    await stored.until_serving(feedback, expected=False)
    redis.start()
    await stored.until_serving(feedback)
    assert (await stored.feedback.SubmitFeedback(submit)).outcomes[0].ack.sequence == 1
