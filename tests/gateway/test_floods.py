"""Callers who open calls and leave them open: whatever they hold, everybody else is served and health answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from papa_serving.client import AsyncClient, FeedbackEvent, Retry
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.api.health import HealthService
from papa_serving.gateway.rpc import edge
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.settings import AuthSettings
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2, user_pb2_grpc

from tests.gateway.support.methods import METHODS, like
from tests.gateway.support.service import Service, eventually, refusal
from tests.gateway.support.tokens import AUDIENCE, ISSUER, Authority, bearer, jwks

PLACES, FLOOD, CONNECTIONS = 16, 120, 3
ALICE, ALICE_KEY = types_pb2.User(user="alice"), UserKey("default", "alice")
USER_SERVICE = "papa.serving.v1.UserService"
PATHS = [
    *(method.path for method in METHODS),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.fixture(autouse=True)
def few_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "ARRIVALS", PLACES)
    monkeypatch.setattr(edge, "OPEN_STREAMS", PLACES)


@asynccontextmanager
async def silent_calls(address: str, path: str, metadata: Any = None) -> AsyncIterator[list[Any]]:
    """Calls over a few connections that send their headers and nothing else; the gateway has seen each of them."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, own) for _ in range(CONNECTIONS)]
    calls = [channels[number % CONNECTIONS].stream_stream(path)(metadata=metadata) for number in range(FLOOD)]
    for channel in channels:
        # A connection delivers its calls in their order.
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    yield calls
    for channel in channels:
        await channel.close()


async def everything_works(service: Service, metadata: Any = None) -> None:
    assert await service.serving("")
    await service.user.GetUser(user_pb2.GetUserRequest(user=ALICE), metadata=metadata)
    await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1), metadata=metadata)
    stream = service.feedback.StreamFeedback(metadata=metadata)
    await stream.write(feedback_pb2.StreamFeedbackRequest(event=like(ALICE)))
    assert (await stream.read()).outcome.HasField("ack")
    stream.cancel()


@pytest.mark.parametrize("path", PATHS)
async def test_calls_without_a_message_shut_nobody_out(unstarted: Service, path: str) -> None:
    await unstarted.start(max_concurrent_rpcs=PLACES)
    async with silent_calls(unstarted.gateway.address, path) as calls:
        await everything_works(unstarted)
        await eventually(lambda: sum(not call.done() for call in calls) <= PLACES)


@pytest.mark.parametrize("path", PATHS)
async def test_the_first_message_has_a_deadline(unstarted: Service, path: str) -> None:
    await unstarted.start(first_message_seconds=0.1)
    refused = await refusal(unstarted.channel.stream_stream(path)())
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_LATE")
    assert refused.retry_after is not None


async def test_a_call_that_ends_without_a_message_is_refused(service: Service) -> None:
    refused = await refusal(service.channel.stream_stream(f"/{USER_SERVICE}/GetUser")(iter(())))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_our_own_client_may_have_nothing_to_say_for_a_while(unstarted: Service) -> None:
    await unstarted.start(first_message_seconds=0.1)
    speak = asyncio.Event()

    async def events() -> AsyncIterator[FeedbackEvent]:
        await speak.wait()
        yield FeedbackEvent("alice", 1.0, item_id="i")

    async with AsyncClient(unstarted.gateway.address, retry=Retry(attempts=1)) as client:
        stream = client.stream_feedback(events())
        outcome = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        speak.set()
        assert (await outcome).sequence == 1
        await stream.close()


async def test_watches_of_health_have_a_limit_of_their_own(unstarted: Service) -> None:
    await unstarted.start(max_concurrent_rpcs=PLACES)
    await unstarted.until_serving(USER_SERVICE)
    request, allowed = health_pb2.HealthCheckRequest(service=USER_SERVICE), edge.OPEN_STREAMS_PER_CONNECTION
    watches = [unstarted.health.Watch(request) for _ in range(FLOOD)]
    for watch in watches[:allowed]:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert {(await refusal(watch)).reason for watch in watches[allowed:]} == {"OVERLOADED"}
    await everything_works(unstarted)
    async with grpc.aio.insecure_channel(unstarted.gateway.address, (("grpc.use_local_subchannel_pool", 1),)) as other:
        watch = health_pb2_grpc.HealthStub(other).Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def guarded(unstarted: Service, authority: Authority, tmp_path: Path) -> Service:
    (tmp_path / "jwks.json").write_text(jwks(authority))
    auth = AuthSettings(mode="jwt", jwks=str(tmp_path / "jwks.json"), audience=AUDIENCE, issuer=ISSUER)
    await unstarted.start(auth=auth, max_concurrent_rpcs=PLACES)
    return unstarted


async def test_silent_streams_of_a_user_leave_room_for_others(guarded: Service, authority: Authority) -> None:
    mine, path = bearer(authority.token(user="mallory")), "/papa.serving.v1.FeedbackService/StreamFeedback"
    async with silent_calls(guarded.gateway.address, path, mine):
        await everything_works(guarded, bearer(authority.token(tenant="other")))
        await everything_works(guarded, bearer(authority.token(user="alice")))


async def test_calls_without_a_credential_hold_nothing(guarded: Service, authority: Authority) -> None:
    async with silent_calls(guarded.gateway.address, f"/{USER_SERVICE}/WatchUser") as calls:
        assert {await call.code() for call in calls} <= {
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        await everything_works(guarded, bearer(authority.token()))


async def test_a_tenant_with_many_users_leaves_room_for_another(guarded: Service, authority: Authority) -> None:
    mine, served = bearer(authority.token()), 0
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        for served in range(FLOOD):
            request = user_pb2.WatchUserRequest(user=types_pb2.User(user=str(served)))
            await anext(aiter(guarded.user.WatchUser(request, metadata=mine)))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served == PLACES * 7 // 8
    await everything_works(guarded, bearer(authority.token(tenant="other")))


async def test_a_connection_has_a_cap_on_its_calls(unstarted: Service) -> None:
    await unstarted.start(max_connection_rpcs=3)
    watches = [unstarted.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE)) for _ in range(3)]
    for watch in watches:
        await watch.read()
    assert (await refusal(unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE)))).reason == "OVERLOADED"
    assert await unstarted.serving(""), "health is not counted"
    async with grpc.aio.insecure_channel(unstarted.gateway.address, (("grpc.use_local_subchannel_pool", 1),)) as other:
        await user_pb2_grpc.UserServiceStub(other).GetUser(user_pb2.GetUserRequest(user=ALICE))
    watches[0].cancel()
    await eventually(lambda: unstarted.users.watchers(ALICE_KEY) == 2)
    await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE))


class Deaf:
    """The context of a watcher whose connection takes no more bytes."""

    async def write(self, message: object) -> None:
        await asyncio.Event().wait()


async def test_a_watcher_that_does_not_read_keeps_the_status_from_nobody() -> None:
    service = HealthService(Drain())
    watching = asyncio.create_task(service.Watch(health_pb2.HealthCheckRequest(), Deaf()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.wait_for(service.set("", health_pb2.HealthCheckResponse.NOT_SERVING), 60)
    watching.cancel()
