"""The gateway's memory under callers who do not read what they asked for, and under more calls than it takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from papa_serving.stubs.serving.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    types_pb2,
)

from tests.gateway.support.fake_engine import FakeEngine, Step, done, items, wait
from tests.gateway.support.process import Process
from tests.gateway.support.service import Refusal

MIB = 2**20
ALICE, BOB = types_pb2.User(user="alice"), types_pb2.User(user="bob")
CALLS, LIMIT = 1_200, 100
OWN_WINDOW = (("grpc.http2.bdp_probe", 0),)
"""Options of a caller that does not read ahead, so that the test counts what the gateway buffers."""


class Watched:
    """A gateway in a process of its own, and what became of its memory."""

    def __init__(self, process: Process, address: str, engine: FakeEngine) -> None:
        self.address, self.engine = address, engine
        self._seen = psutil.Process(process.process.pid)
        self._before = self.memory()
        self.growth = 0

    def memory(self) -> int:
        return int(self._seen.memory_info().rss)

    async def stands_still(self, value: Callable[[], int]) -> None:
        """Waits until `value()` has not changed for a second, and watches the memory meanwhile."""
        last, same = -1, 0
        while same < 20:
            self.growth = max(self.growth, self.memory() - self._before)
            same = same + 1 if value() == last else 0
            last = value()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def watched(folder: Path, scripts: list[list[Step]], **environment: str) -> AsyncIterator[Watched]:
    engine = FakeEngine()
    await engine.start()
    engine.scripts = scripts
    address = f"127.0.0.1:{engine.port}"
    async with Process(folder, PAPA_GATEWAY__GENERATOR=address, **environment) as process:
        ready = await process.ready()
        yield Watched(process, ready["grpc"], engine)
    await engine.die()


async def test_items_that_nobody_reads_stay_with_the_engine(tmp_path: Path) -> None:
    """Each stream has 192 MiB to come; the gateway takes a few of them and then makes the engine wait."""
    sent: Counter[int] = Counter()
    streams, messages = 3, 64

    def counted(index: int) -> Step:
        make = items(index, size=3 * MIB)

        async def step(request: object, context: object) -> object:
            sent[id(context)] += 1
            return await make(request, context)  # type: ignore[arg-type]

        return step  # type: ignore[return-value]

    script = [*(counted(index) for index in range(messages)), done()]
    async with (
        watched(tmp_path, [script]) as gateway,
        grpc.aio.insecure_channel(gateway.address, OWN_WINDOW) as channel,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.StreamGenerateRequest(user=ALICE, count=messages)
        calls = [stub.StreamGenerate(request) for _ in range(streams)]
        readers = [aiter(call) for call in calls]
        for reader in readers:
            assert (await anext(reader)).item.index == 0
        await gateway.stands_still(sent.total)
        assert max(sent.values()) < messages / 4, "the engine was made to wait"
        # A third of what is to come; the allocator keeps more on some machines than on others.
        assert gateway.growth < streams * 64 * MIB, f"{gateway.growth >> 20} MiB more"
        assert len([message async for message in readers[0]]) == messages, "who reads after all gets the rest"
        for call in calls:
            call.cancel()


async def test_answers_that_nobody_reads_make_the_sender_wait(tmp_path: Path) -> None:
    """Every event is refused, with a long answer; who does not read those cannot go on sending."""
    streams, sent = 2, Counter[int]()
    event = feedback_pb2.FeedbackEvent(event_id="e" * 120, user=ALICE, item_id="?" * 2_000, grade=9.0)

    async def send(stream: int, call: grpc.aio.StreamStreamCall) -> None:  # type: ignore[type-arg]
        while True:
            await call.write(feedback_pb2.StreamFeedbackRequest(event=event))
            sent[stream] += 1

    async with watched(tmp_path, []) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
        calls = [stub.StreamFeedback() for _ in range(streams)]
        sending = [asyncio.create_task(send(number, call)) for number, call in enumerate(calls)]
        await gateway.stands_still(sent.total)
        assert sent.total() > 0
        assert not any(task.done() for task in sending), "they wait; nobody was cut off"
        assert gateway.growth < streams * 32 * MIB, f"{gateway.growth >> 20} MiB more after {sent.total()} events"
        assert (await calls[0].read()).outcome.error.reason == "INVALID_REQUEST"
        for task in (*sending, *calls):
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def test_more_calls_than_it_takes_are_refused_and_cost_no_memory(tmp_path: Path) -> None:
    gate = asyncio.Event()
    limit = {"PAPA_GATEWAY__MAX_CONCURRENT_RPCS": str(LIMIT)}
    async with watched(tmp_path, [[wait(gate), items(0), done()]], **limit) as gateway:
        codes, served = Counter[str](), 0

        async def call(stub: generation_pb2_grpc.GenerationServiceStub, user: types_pb2.User = ALICE) -> None:
            nonlocal served
            try:
                await stub.Generate(generation_pb2.GenerateRequest(user=user, count=1))
                served += 1
            except grpc.aio.AioRpcError as failure:
                codes[failure.code().name] += 1

        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            calls = [asyncio.create_task(call(stub)) for _ in range(CALLS)]
            await gateway.stands_still(codes.total)
            assert codes == {"RESOURCE_EXHAUSTED": CALLS - LIMIT // 2}
            assert gateway.growth < 64 * MIB, f"{gateway.growth >> 20} MiB more"
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stub.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
            assert Refusal(failure.value).reason == "OVERLOADED"
            others = asyncio.create_task(call(stub, BOB))
            gate.set()
            await asyncio.gather(*calls)
            await others
            assert served == LIMIT // 2 + 1, "who was let in is served, and another user finds room"
