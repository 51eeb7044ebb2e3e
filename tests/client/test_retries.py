"""Which calls are retried, when and with which content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from papa_serving.client import (
    AsyncClient,
    CallFailed,
    Client,
    FeedbackEvent,
    GeneratorUnavailable,
    PapaError,
    RateLimited,
    Retry,
    StorageUnavailable,
    Timeouts,
    Tls,
    UserDeleted,
    request_id,
)
from papa_serving.client.retry import Attempts

from tests.client.flaky_gateway import FlakyGateway
from tests.gateway.support.service import eventually

AWAY, BROKEN = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL


@pytest.fixture
async def gateway() -> AsyncIterator[FlakyGateway]:
    flaky = FlakyGateway()
    await flaky.start()
    yield flaky
    await flaky.stop()


@pytest.fixture
async def client(connect: Any, gateway: FlakyGateway) -> Any:
    return connect(gateway.address)


def events(count: int) -> list[FeedbackEvent]:
    return [FeedbackEvent("alice", 1.0, item_id=f"i{i}", event_id=f"e{i}") for i in range(count)]


async def test_the_same_events_under_the_same_ids(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [AWAY, StorageUnavailable("down", retry_after=0.01)]
    await client.submit_feedback([FeedbackEvent("alice", 1.0, item_id="a")])
    assert len(gateway.calls) == 3
    assert len({call.SerializeToString() for call in gateway.calls}) == 1


async def test_not_for_ever(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [AWAY] * 10
    with pytest.raises(CallFailed) as raised:
        await client.get_user("alice")
    assert raised.value.code is AWAY
    assert len(gateway.calls) == 4


@pytest.mark.parametrize("failure", [BROKEN, UserDeleted("gone"), grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_not_what_would_fail_again(gateway: FlakyGateway, client: Any, failure: Any) -> None:
    gateway.failures = [failure]
    with pytest.raises(PapaError):
        await client.get_user("alice")
    assert len(gateway.calls) == 1


async def test_a_call_that_a_shutdown_cancels_is_made_again(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [grpc.StatusCode.CANCELLED]
    await client.submit_feedback(events(1))
    assert len(gateway.calls) == 2
    assert gateway.applied == ["e0"]
    gateway.failures = [grpc.StatusCode.CANCELLED] * 10
    with pytest.raises(CallFailed, match="shuts down") as raised:
        await client.get_user("alice")
    assert raised.value.code is AWAY


async def test_a_call_that_the_caller_cancels_is_not(gateway: FlakyGateway) -> None:
    """By a cancelled task, and by closing the client under a call."""
    client = AsyncClient(gateway.address)
    gateway.hold = asyncio.Event()
    asking = asyncio.ensure_future(client.get_user("alice"))
    await eventually(lambda: len(gateway.calls) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    blocking = Client(gateway.address)
    asking = asyncio.ensure_future(asyncio.to_thread(blocking.get_user, "alice"))
    await eventually(lambda: len(gateway.calls) == 2)
    blocking.close()
    with pytest.raises(CallFailed) as raised:
        await asyncio.wait_for(asking, 60)
    assert raised.value.code is grpc.StatusCode.CANCELLED
    asking = asyncio.ensure_future(client.get_user("alice"))
    await eventually(lambda: len(gateway.calls) == 3)
    await client.close()
    (outcome,) = await asyncio.wait_for(asyncio.gather(asking, return_exceptions=True), 60)
    assert isinstance(outcome, asyncio.CancelledError | CallFailed)
    gateway.hold.set()
    await client.close()
    assert len(gateway.calls) == 3


async def test_a_stream_that_a_shutdown_cancels_is_made_again(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [grpc.StatusCode.CANCELLED, None, None]
    assert [item.item_id async for item in client.stream_generate("alice", 1)] == ["first"]
    assert len(gateway.calls) == 3
    gateway.failures = [None, grpc.StatusCode.CANCELLED]
    stream = client.stream_generate("alice", 1)
    await anext(stream)
    with pytest.raises(CallFailed):
        await anext(stream)
    gateway.cut_after, gateway.cut_with = [1, 10], grpc.StatusCode.CANCELLED
    outcomes = [outcome async for outcome in client.stream_feedback(events(20), window=4)]
    assert [outcome.event_id for outcome in outcomes] == [f"e{i}" for i in range(20)]
    assert gateway.applied == [f"e{i}" for i in range(20)]


@pytest.mark.parametrize("by", ["the stream", "the client"])
@pytest.mark.parametrize("method", ["stream_generate", "stream_feedback"])
async def test_a_stream_that_its_caller_ends_is_not(gateway: FlakyGateway, method: str, by: str) -> None:
    gateway.hold = asyncio.Event()
    blocking = Client(gateway.address)
    stream: Any = (
        blocking.stream_generate("alice", 1) if method == "stream_generate" else blocking.stream_feedback(events(1))
    )
    reading = asyncio.ensure_future(asyncio.to_thread(next, stream))
    await eventually(lambda: len(gateway.calls) == 1)
    end = stream.cancel if method == "stream_generate" else stream.close
    (blocking.close if by == "the client" else end)()
    with pytest.raises(CallFailed) as raised:
        await asyncio.wait_for(reading, 60)
    assert raised.value.code is grpc.StatusCode.CANCELLED
    gateway.hold.set()
    blocking.close()
    assert len(gateway.calls) == 1


async def test_a_call_for_many_users_has_the_time_of_each(gateway: FlakyGateway, client: Any) -> None:
    """The clock runs while results are handled, so one user's time would be too short for many."""
    assert len([result async for result in client.generate_many([f"u{n}" for n in range(150)], 1)]) == 150
    assert len([result async for result in client.generate_many(["a", "b"], 1, timeout=1_000.0)]) == 2
    each = Timeouts().generate
    for left, whole in zip(gateway.time_left, (100 * each, 50 * each, 1_000.0), strict=True):
        assert left is not None
        assert left == pytest.approx(whole, rel=0.1)


async def test_only_users_without_a_result_are_asked_for_again(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [AWAY, grpc.StatusCode.CANCELLED]
    results = [result async for result in client.generate_many(["a", "b", "c", "d"], 1)]
    assert {result.user: result.generation.generation_id for result in results} == {u: f"of {u}" for u in "abcd"}
    assert [[each.user.user for each in call.requests] for call in gateway.calls] == [
        list("abcd"),
        list("abc"),
        ["a", "b"],
    ]


async def test_the_servers_delay_is_obeyed(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [RateLimited("slowly", retry_after=0.4)]
    started = time.monotonic()
    await client.get_user("alice")
    assert time.monotonic() - started >= 0.4


async def test_nobody_listens(connect: Any) -> None:
    with pytest.raises(CallFailed) as raised:
        await connect("127.0.0.1:1").get_user("alice")
    assert raised.value.code is AWAY


async def test_a_generation_is_tried_again_until_its_first_item(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [AWAY, GeneratorUnavailable("starting", retry_after=0.01), None, None]
    assert [item.item_id async for item in client.stream_generate("alice", 1)] == ["first"]
    gateway.failures = [None, GeneratorUnavailable("died", retry_after=0.01)]
    stream = client.stream_generate("alice", 1)
    assert (await anext(stream)).item_id == "first"
    with pytest.raises(GeneratorUnavailable, match="died"):
        await anext(stream)


async def test_a_watch_goes_on_across_connections(gateway: FlakyGateway, client: Any) -> None:
    gateway.failures = [AWAY] * 6 + [UserDeleted("gone")]
    watch = client.watch_user("alice")
    assert [(await anext(watch)).likes for _ in range(7)] == list(range(7)), "progress resets the count of attempts"
    with pytest.raises(UserDeleted):
        await anext(watch)


async def test_a_stream_that_is_cut_loses_and_doubles_nothing(gateway: FlakyGateway, client: Any) -> None:
    gateway.cut_after = [1, 10, 25]
    outcomes = [outcome async for outcome in client.stream_feedback(events(60), window=16)]
    assert [outcome.event_id for outcome in outcomes] == [f"e{i}" for i in range(60)]
    assert [outcome.sequence for outcome in outcomes] == list(range(1, 61))
    assert gateway.applied == [f"e{i}" for i in range(60)]
    assert len(gateway.received) > 60
    assert [outcome.duplicate for outcome in outcomes].count(True) >= 3, "those whose answers were lost"


async def test_a_stream_that_is_cut_for_good(gateway: FlakyGateway, client: Any) -> None:
    gateway.cut_after = [3] + [1] * 10
    stream = client.stream_feedback(events(60), window=16)
    assert [(await anext(stream)).event_id for _ in range(2)] == ["e0", "e1"]
    with pytest.raises(CallFailed):
        await anext(stream)


async def test_a_stream_reads_no_further_than_its_window(gateway: FlakyGateway, client: Any) -> None:
    read = 0

    def source() -> Iterator[FeedbackEvent]:
        nonlocal read
        for event in events(100):
            read += 1
            yield event

    stream = client.stream_feedback(source(), window=5)
    await anext(stream)
    await asyncio.sleep(0.3)
    assert read <= 6
    assert len([outcome async for outcome in stream]) == 99
    assert read == 100


async def test_a_source_that_waits_for_its_answers(gateway: FlakyGateway, client: Any) -> None:
    """A conversation: the next event is made only when the last one is answered, over a connection that is cut."""
    gateway.cut_after = [2, 3]
    answered = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def blocking() -> Iterator[FeedbackEvent]:
        for event in events(6):
            yield event
            asyncio.run_coroutine_threadsafe(answered.get(), loop).result(10)

    async def of_loop() -> AsyncIterator[FeedbackEvent]:
        for event in events(6):
            yield event
            await answered.get()

    source: Any = blocking() if type(client).__name__ == "Blocking" else of_loop()
    outcomes = []
    async for outcome in client.stream_feedback(source):
        outcomes.append(outcome.event_id)
        answered.put_nowait(outcome.event_id)
    assert outcomes == [f"e{i}" for i in range(6)]


async def test_a_source_that_fails(gateway: FlakyGateway, client: Any) -> None:
    def source() -> Iterator[FeedbackEvent]:
        yield from events(2)
        raise KeyError("the caller's own")

    stream = client.stream_feedback(source())
    assert [(await anext(stream)).event_id for _ in range(2)] == ["e0", "e1"], "what came before is answered"
    with pytest.raises(KeyError, match="the caller's own"):
        await anext(stream)


async def test_a_token_goes_with_each_call_and_may_change(gateway: FlakyGateway, connect: Any) -> None:
    tokens = iter(["one", "two", "three"])
    client = connect(gateway.address, token=lambda: next(tokens))
    gateway.failures = [AWAY]
    await client.get_user("alice")
    assert [each["authorization"] for each in gateway.metadata] == ["Bearer one", "Bearer two"]
    assert [outcome async for outcome in client.stream_feedback(events(1))]
    await connect(gateway.address, token="fixed").get_user("alice")
    assert gateway.metadata[-1]["authorization"] == "Bearer fixed"
    await connect(gateway.address).get_user("alice")
    assert "authorization" not in gateway.metadata[-1]


async def test_tls(connect: Any, certificate: tuple[bytes, bytes]) -> None:
    key, chain = certificate
    gateway = FlakyGateway()
    credentials = grpc.ssl_server_credentials([(key, chain)])
    await gateway.start(lambda server: server.add_secure_port("localhost:0", credentials))
    await connect(gateway.address, tls=Tls(root_certificates=chain)).get_user("alice")
    with pytest.raises(CallFailed):
        await connect(gateway.address, tls=Tls(), retry=Retry(attempts=1)).get_user("alice")
    with pytest.raises(CallFailed):
        await connect(gateway.address, retry=Retry(attempts=1)).get_user("alice")
    await gateway.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Key and self-signed certificate of localhost, PEM."""
    import subprocess

    folder: Path = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return key.read_bytes(), chain.read_bytes()


def test_pauses_grow_up_to_a_limit() -> None:
    attempts = Attempts(Retry(attempts=8, first_delay=1.0, longest_delay=4.0), None)
    pauses = [attempts.pause_after(StorageUnavailable("down")) for _ in range(7)]
    for pause, most in zip(pauses, (1, 2, 4, 4, 4, 4, 4), strict=True):
        assert most / 2 <= pause <= most
    with pytest.raises(StorageUnavailable):
        attempts.pause_after(StorageUnavailable("down"))


def test_a_call_is_tried_again_as_long_as_its_time_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    attempts, made = Attempts(Retry(), 120.0), 0
    with pytest.raises(StorageUnavailable):
        while True:
            clock[0] += attempts.pause_after(StorageUnavailable("down"))
            made += 1
    assert 110 < clock[0] < 120
    assert made > 20


def test_a_call_without_a_time_out_gives_up_where_nobody_answers_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    attempts = Attempts(Retry(patience=60.0), None)

    def fails_until(end: float) -> None:
        while clock[0] < end:
            clock[0] += attempts.pause_after(StorageUnavailable("down"))

    fails_until(40)
    attempts.succeed()
    fails_until(80)
    with pytest.raises(StorageUnavailable):
        fails_until(1000)
    assert 90 < clock[0] < 120


def test_no_pause_beyond_the_time_out() -> None:
    attempts = Attempts(Retry(), 5.0)
    with pytest.raises(StorageUnavailable):
        attempts.pause_after(StorageUnavailable("down", retry_after=10.0))


async def test_an_unanswered_call_has_a_request_id_too(connect: Any) -> None:
    client = connect("127.0.0.1:1", retry=Retry(attempts=1))
    with pytest.raises(CallFailed) as failed, request_id("order-4712"):
        await client.get_user("alice")
    assert failed.value.metadata["request_id"] == "order-4712"


@pytest.mark.parametrize("value", ["", "two words", "é", "x" * 129, "a\nb"])
def test_what_is_no_request_id(value: str) -> None:
    with pytest.raises(ValueError, match="is no request id"), request_id(value):
        pass
