"""Health, readiness, reflection and the way out."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.gateway import server
from papa_serving.gateway.api.health import SERVICES
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2

from tests.gateway.support.fake_engine import done, items, wait
from tests.gateway.support.service import Service, eventually, refusal
from tests.ports import free_port

GENERATION, FEEDBACK, USER, CATALOGUE, RECOMMEND = (
    f"papa.serving.v1.{name}Service" for name in ("Generation", "Feedback", "User", "Catalogue", "Recommend")
)
ALICE = types_pb2.User(user="alice")


async def test_everything_serves_once_it_has_been_seen_to_work(service: Service) -> None:
    for name in (*SERVICES, ""):
        await service.until_serving(name)
        assert await service.serving(name)


async def test_a_service_that_does_not_exist(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.serving("papa.serving.v1.Nothing")
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_generation_follows_the_generator(unstarted: Service) -> None:
    port = free_port()
    await unstarted.start(engine_up=False, generator=f"127.0.0.1:{port}")
    await unstarted.until_serving(FEEDBACK)
    assert not await unstarted.serving(GENERATION)
    await unstarted.engine.start(port)
    await unstarted.until_serving(GENERATION)
    await unstarted.engine.die()
    await unstarted.until_serving(GENERATION, expected=False)
    assert await unstarted.serving(FEEDBACK)
    assert await unstarted.serving(""), "the process itself is well"


async def test_feedback_and_users_follow_storage(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.gateway.api.health.POLL_SECONDS", 0.02)
    await service.until_serving(FEEDBACK)
    service.items.failure = StorageUnavailable("down")
    for name in (FEEDBACK, USER):
        await service.until_serving(name, expected=False)
    assert await service.serving(GENERATION)
    assert len((await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))).items) == 1
    service.items.failure = None
    for name in (FEEDBACK, USER):
        await service.until_serving(name)


async def test_recommendations_follow_all_that_they_need(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.gateway.api.health.POLL_SECONDS", 0.02)
    await service.until_serving(RECOMMEND)
    encoder = service.catalogues.encoder
    monkeypatch.setattr(service.catalogues, "encoder", _down)
    for name in (RECOMMEND, CATALOGUE):
        await service.until_serving(name, expected=False)
    assert await service.serving(GENERATION) and await service.serving(FEEDBACK)
    monkeypatch.setattr(service.catalogues, "encoder", encoder)
    for name in (RECOMMEND, CATALOGUE):
        await service.until_serving(name)
    service.items.failure = StorageUnavailable("down")
    await service.until_serving(RECOMMEND, expected=False)
    service.items.failure = None
    await service.until_serving(RECOMMEND)
    await service.engine.die()
    await service.until_serving(RECOMMEND, expected=False)
    assert await service.serving(CATALOGUE)


async def _down(catalogue: object) -> str:
    raise StorageUnavailable("down")


async def test_reflection_on(service: Service) -> None:
    assert {*SERVICES, "grpc.health.v1.Health"} <= await service.reflected()


async def test_reflection_off(unstarted: Service) -> None:
    await unstarted.start(reflection=False)
    # Nothing is sent: where a message meets the refusal on its way, grpc.aio calls that an internal error.
    call = reflection_pb2_grpc.ServerReflectionStub(unstarted.channel).ServerReflectionInfo()
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE))


async def test_a_drain_says_not_serving_first_and_finishes_what_runs(
    unstarted: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unstarted.start(notice_seconds=2.0, drain_seconds=120.0)
    await unstarted.until_serving(GENERATION)
    gate = asyncio.Event()
    unstarted.engine.scripts = [[items(0), wait(gate), items(1), done()]]
    stream = aiter(unstarted.generation.StreamGenerate(generation_pb2.StreamGenerateRequest(user=ALICE, count=2)))
    assert (await anext(stream)).item.index == 0
    noticed = asyncio.Event()
    asked: list[float] = []

    async def notice(seconds: float) -> None:
        asked.append(seconds)
        await noticed.wait()

    monkeypatch.setattr(server, "asyncio", SimpleNamespace(sleep=notice))
    draining = asyncio.create_task(unstarted.gateway.drain())
    for name in (GENERATION, FEEDBACK, USER, ""):
        await unstarted.until_serving(name, expected=False)
    assert (await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE))).HasField("state"), "still answered"
    assert asked == [2.0]
    noticed.set()
    codes: set[grpc.StatusCode] = set()
    async with asyncio.timeout(60):
        while grpc.StatusCode.UNAVAILABLE not in codes:
            try:
                await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE))
            except grpc.aio.AioRpcError as failure:
                codes.add(failure.code())
    # The library cancels a call that is on its way to the server at the moment of its shutdown.
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert not draining.done()
    gate.set()
    rest = [message async for message in stream]
    assert rest[0].item.index == 1
    assert rest[1].HasField("timings")
    await asyncio.wait_for(draining, 30)


async def test_a_drain_ends_what_would_never_end(service: Service) -> None:
    watch = aiter(service.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE)))
    await anext(watch)
    feedback = service.feedback.StreamFeedback()
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i", grade=1.0)
    await feedback.write(feedback_pb2.StreamFeedbackRequest(event=event))
    assert (await feedback.read()).outcome.ack.sequence == 1
    draining = asyncio.create_task(service.gateway.drain())
    refused = await refusal(watch)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert refused.retry_after is not None
    with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
        await feedback.read()
    await asyncio.wait_for(draining, 30)


async def test_a_drain_answers_the_events_that_it_has_taken(service: Service) -> None:
    service.log.gate = asyncio.Event()
    feedback = service.feedback.StreamFeedback()
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i", grade=1.0)
    await feedback.write(feedback_pb2.StreamFeedbackRequest(event=event))
    await service.log.waiting.wait()
    draining = asyncio.create_task(service.gateway.drain())
    await eventually(lambda: service.gateway._drain._begun)
    service.log.gate.set()
    assert (await feedback.read()).outcome.ack.sequence == 1
    assert await feedback.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(draining, 30)


async def test_a_drain_does_not_wait_for_ever(unstarted: Service) -> None:
    await unstarted.start(drain_seconds=0.3)
    unstarted.engine.scripts = [[wait(asyncio.Event())]]
    call = unstarted.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    waiting = asyncio.ensure_future(call)
    await unstarted.engine.running.wait()
    await asyncio.wait_for(unstarted.gateway.drain(), 60)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await waiting
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(unstarted.engine.cancelled.wait(), 60)


async def test_a_health_watcher_learns_of_the_drain_and_does_not_hold_it_up(unstarted: Service) -> None:
    service = unstarted
    await service.start(notice_seconds=0.2)
    await service.until_serving(GENERATION)
    unread = [service.health.Watch(health_pb2.HealthCheckRequest(service=GENERATION)) for _ in range(3)]
    watch = aiter(service.health.Watch(health_pb2.HealthCheckRequest(service=GENERATION)))
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
    await asyncio.wait_for(service.gateway.drain(), 30)
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await anext(watch)
    assert len(unread) == 3
