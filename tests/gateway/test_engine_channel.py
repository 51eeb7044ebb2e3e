"""A generator's address that begins to name another generator, as a Kubernetes Service does in an upgrade."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from papa_serving.contracts.generation import GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway import engine_client
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import generation_pb2, types_pb2

from tests.gateway.support.changing_name import ChangingName
from tests.gateway.support.fake_engine import FakeEngine, Step, done, fail, items, wait
from tests.gateway.support.service import Service, eventually

SPEC = GenerationSpec(request_id="r", generation_id="g", user=UserKey("default", "alice"), count=1, seed=1)
REQUEST = generation_pb2.GenerateRequest(user=types_pb2.User(user="alice"), count=1)


@pytest.fixture
async def successor() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    await engine.start()
    yield engine
    await engine.die()


async def test_calls_follow_the_name_and_none_is_lost(unstarted: Service, successor: FakeEngine) -> None:
    gate = asyncio.Event()
    await unstarted.engine.start()
    unstarted.engine.scripts = [[wait(gate), items(0), done()], [items(0), done()]]
    name = ChangingName(unstarted.engine.port)
    async with name as address:
        await unstarted.start(engine_up=False, generator=address, engine_channel_age=0.3)
        long = asyncio.ensure_future(unstarted.generation.Generate(REQUEST))
        await eventually(lambda: len(unstarted.engine.requests) == 1)
        switched, count = False, 0
        async with asyncio.timeout(30):
            while len(successor.requests) < 40:
                answers = await asyncio.gather(*(unstarted.generation.Generate(REQUEST) for _ in range(4)))
                count += sum(len(answer.items) for answer in answers)
                if count >= 40 and not switched:
                    name.port, switched = successor.port, True
        before = len(unstarted.engine.requests)
        assert count == before - 1 + len(successor.requests), "each call was made once"
        await asyncio.gather(*(unstarted.generation.Generate(REQUEST) for _ in range(20)))
        assert len(unstarted.engine.requests) == before, "no new call reaches the old generator"
        gate.set()
        assert len((await long).items) == 1, "and the call that ran there ends well"
        assert not unstarted.engine.cancelled.is_set()


async def test_a_generator_that_went_away_is_replaced_at_once(unstarted: Service, successor: FakeEngine) -> None:
    await unstarted.engine.start()
    name = ChangingName(unstarted.engine.port)
    async with name as address:
        await unstarted.start(engine_up=False, generator=address, engine_channel_age=3_600.0)
        await unstarted.generation.Generate(REQUEST)
        name.port = successor.port
        await unstarted.engine.die()
        assert len((await unstarted.generation.Generate(REQUEST)).items) == 1
        assert len(successor.requests) == 1


async def test_an_answer_of_unavailable_asks_the_name_again(unstarted: Service, successor: FakeEngine) -> None:
    """The old server still stands and turns calls away: only a new connection reaches the new one."""

    await unstarted.engine.start()
    name = ChangingName(unstarted.engine.port)
    async with name as address:
        await unstarted.start(engine_up=False, generator=address, engine_channel_age=3_600.0)
        await unstarted.generation.Generate(REQUEST)
        name.port, unstarted.engine.scripts = successor.port, [[fail(grpc.StatusCode.UNAVAILABLE)]]
        assert len((await unstarted.generation.Generate(REQUEST)).items) == 1


async def test_an_import_follows_the_name_too(successor: FakeEngine) -> None:
    first = FakeEngine()
    await first.start()
    name = ChangingName(first.port)
    async with name as address:
        client = EngineClient(address, max_age=3_600.0)
        await client.pack_adapter(engine_pb2.PackAdapterRequest(request_id="a"))
        name.port = successor.port
        await first.die()
        await client.pack_adapter(engine_pb2.PackAdapterRequest(request_id="b"))
        assert [each.request_id for each in successor.packed] == ["b"]
        await client.close()


async def test_a_renewal_is_no_outage(unstarted: Service) -> None:
    """The readiness of generation stays while connections are renewed, and renewed ones are closed."""
    await unstarted.engine.start()
    name = ChangingName(unstarted.engine.port)
    async with name as address:
        await unstarted.start(engine_up=False, generator=address, engine_channel_age=0.05)
        await unstarted.until_serving("papa.serving.v1.GenerationService")
        async with asyncio.timeout(30):
            while name.connections < 5:
                assert await unstarted.serving("papa.serving.v1.GenerationService")
                await unstarted.generation.Generate(REQUEST)
                await asyncio.sleep(0.01)
        await eventually(lambda: name.open() <= 2)


async def test_a_renewed_connection_is_closed_with_its_last_call(successor: FakeEngine) -> None:
    """Not only when the interpreter next looks for cycles, which may be minutes: connections would pile up."""
    name = ChangingName(successor.port)
    async with name as address:
        client = EngineClient(address, max_age=0.05)
        gc.collect()
        gc.disable()
        try:
            async with asyncio.timeout(30):
                while name.connections < 8:
                    async with aclosing(client.run(SPEC, lambda _: None)) as events:
                        assert [event async for event in events]
                    await asyncio.sleep(0.01)
            await eventually(lambda: name.open() <= 2)
        finally:
            gc.enable()
        await client.close()


async def test_what_a_caller_has_left_unread_is_still_told(
    successor: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws of a run count for its caller, also those that are told after the caller's last look."""
    for limit in ("REST_SECONDS", "REST_PAUSE"):
        monkeypatch.setattr(f"papa_serving.gateway.engine_client.{limit}", 60.0)
    successor.scripts = [[*(items(index, size=3 * 2**20, drawn=2 * index) for index in range(1, 9)), done(drawn=17)]]
    client, drawn = EngineClient(f"127.0.0.1:{successor.port}"), [0]
    events = client.run(SPEC, lambda event: drawn.append(event.drawn))
    await anext(events)
    assert drawn[-1] == 2
    await events.aclose()
    await eventually(lambda: drawn[-1] == 17)
    await client.close()


async def test_a_run_that_was_left_is_cancelled_soon(successor: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.gateway.engine_client.REST_PAUSE", 0.01)
    successor.scripts = [[items(1, drawn=2), wait(asyncio.Event())]]
    client = EngineClient(f"127.0.0.1:{successor.port}")
    events = client.run(SPEC, lambda _: None)
    await anext(events)
    await events.aclose()
    await eventually(successor.cancelled.is_set)
    await client.close()


async def test_runs_that_were_left_do_not_pile_up(successor: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.gateway.engine_client.RESTS", 0)
    successor.scripts = [[items(1, drawn=2), wait(asyncio.Event())]]
    client = EngineClient(f"127.0.0.1:{successor.port}")
    events = client.run(SPEC, lambda _: None)
    await anext(events)
    await events.aclose()
    assert not client._rests
    await eventually(successor.cancelled.is_set)
    await client.close()


def made_in_turn(event: Step) -> Step:
    """An event that takes the engine a tenth of a second to make."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse | None:
        await asyncio.sleep(0.1)
        return await event(request, context)

    return step


async def test_a_run_that_was_left_is_not_drawn_on(successor: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that the engine makes one after another were not on their way; reading them would have it make more."""
    monkeypatch.setattr(engine_client, "REST_SECONDS", 600.0)
    event = items(1, drawn=2)
    successor.scripts = [[event, *[made_in_turn(event)] * 1_000]]
    client = EngineClient(f"127.0.0.1:{successor.port}")
    events = client.run(SPEC, lambda _: None)
    await anext(events)
    await events.aclose()
    assert client._rests
    await eventually(lambda: not client._rests)
    await client.close()


async def test_a_run_that_was_left_is_read_for_a_bounded_time(
    successor: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quickly its events come."""
    monkeypatch.setattr(engine_client, "REST_PAUSE", 600.0)
    event = items(1, drawn=2)
    successor.scripts = [[event, *[made_in_turn(event)] * 1_000]]
    client, told = EngineClient(f"127.0.0.1:{successor.port}"), list[object]()
    events = client.run(SPEC, told.append)
    await anext(events)
    told.clear()
    await events.aclose()
    assert client._rests
    await eventually(lambda: not client._rests)
    assert len(told) <= 10, "the time for all of them holds five, of the same clock"
    await client.close()


async def test_an_event_that_arrives_while_the_loop_is_busy_is_not_lost() -> None:
    reading = asyncio.Event()

    class Call:
        async def read(self) -> str:
            loop = asyncio.get_running_loop()
            arrival: asyncio.Future[str] = loop.create_future()
            loop.call_later(engine_client.REST_PAUSE / 2, arrival.set_result, "event")
            reading.set()
            return await arrival

    soon = asyncio.create_task(engine_client._soon(cast(Any, Call())))
    await reading.wait()
    time.sleep(2 * engine_client.REST_PAUSE)  # noqa: ASYNC251 - nothing else is to run meanwhile
    assert await soon == "event"


async def test_one_tenant_leaves_room_for_the_rests_of_others(
    successor: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "RESTS", 8)
    for limit in ("REST_SECONDS", "REST_PAUSE"):
        monkeypatch.setattr(engine_client, limit, 600.0)
    successor.scripts = [[items(1, drawn=2), wait(asyncio.Event())]]
    client = EngineClient(f"127.0.0.1:{successor.port}")

    async def leave(tenant: str) -> int:
        events = client.run(replace(SPEC, user=UserKey(tenant, "alice")), lambda _: None)
        await anext(events)
        await events.aclose()
        return len(client._rests)

    assert [await leave("shop") for _ in range(4)] == [1, 2, 2, 2]
    assert [await leave(tenant) for tenant in ("a", "a", "a", "b", "b", "c", "c", "d")] == [3, 4, 4, 5, 6, 7, 8, 8]
    await client.close()
    assert not client._rests


async def test_a_client_that_closes_ends_what_it_still_reads(successor: FakeEngine) -> None:
    successor.scripts = [[items(1, drawn=2), wait(asyncio.Event())]]
    client = EngineClient(f"127.0.0.1:{successor.port}")
    events = client.run(SPEC, lambda _: None)
    await anext(events)
    await events.aclose()
    await client.close()
    assert not client._rests
