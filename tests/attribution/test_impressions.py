"""Impressions over a running gateway: what is kept, what bounds it, and that no call depends on it."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from papa_serving.attribution.memory import MemoryActivityLog
from papa_serving.contracts.attribution import Impression, Kind, Record, ShownItem
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.behind import MAX_UNDER_WAY, Behind
from papa_serving.gateway.impressions import Impressions, sampled
from papa_serving.settings import AttributionSettings, Settings
from papa_serving.store.memory import MemoryState
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import generation_pb2, types_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.fake_engine import done, items
from tests.gateway.support.service import Service, eventually

ALICE, ALICE_KEY = types_pb2.User(user="alice"), UserKey("default", "alice")


def counted(outcome: str, source: str = "generation") -> float:
    return REGISTRY.get_sample_value("papa_impressions_total", {"source": source, "outcome": outcome}) or 0.0


def kept(service: Service, user: UserKey = ALICE_KEY) -> list[dict[str, object]]:
    return [json.loads(record.data) for record in service.state.user(user).impressions]


def shown(number: int) -> Impression:
    return Impression("generation_id", f"g{number}", [ShownItem("i")])


async def test_every_kind_of_generation_is_an_impression(service: Service) -> None:
    request = generation_pb2.GenerateRequest(user=ALICE, count=2, metadata={"page": "home"}, tags=["spring"])
    answer = await service.generation.Generate(request)
    stream = service.generation.StreamGenerate(generation_pb2.StreamGenerateRequest(user=ALICE, count=2))
    streamed = [message async for message in stream]
    many = [
        message
        async for message in service.generation.GenerateMany(
            generation_pb2.GenerateManyRequest(requests=[generation_pb2.GenerateRequest(user=ALICE, count=1)])
        )
    ]
    await eventually(lambda: len(kept(service)) == 3)
    first, second, third = sorted(
        kept(service), key=lambda each: [answer.generation_id, streamed[0].generation_id].index(each["generation_id"])
        if each["generation_id"] != many[0].generation.generation_id
        else 2,
    )  # fmt: skip
    assert [each["item_id"] for each in first["items"]] == [item.item_id for item in answer.items]  # type: ignore[attr-defined]
    assert (first["metadata"], first["tags"], first["revision"]) == ({"page": "home"}, ["spring"], answer.revision)
    assert len(second["items"]) == 2  # type: ignore[arg-type]
    assert third["generation_id"] == many[0].generation.generation_id


@pytest.mark.parametrize("ends", ["the caller leaves", "the engine fails"])
async def test_a_stream_that_ends_early_is_an_impression_of_what_was_sent(service: Service, ends: str) -> None:
    gate = asyncio.Event()

    async def wait(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> None:
        await gate.wait()
        await context.abort(grpc.StatusCode.INTERNAL, "broken")

    service.engine.scripts = [[items(0), items(1), wait]]
    stream = service.generation.StreamGenerate(generation_pb2.StreamGenerateRequest(user=ALICE, count=3))
    seen = [(await stream.read()).item.item_id for _ in range(2)]
    assert kept(service) == []
    if ends == "the caller leaves":
        stream.cancel()
    else:
        gate.set()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
    await eventually(lambda: len(kept(service)) == 1)
    gate.set()
    (impression,) = kept(service)
    assert [item["item_id"] for item in impression["items"]] == seen  # type: ignore[attr-defined]


async def test_what_was_known_of_an_item_is_kept_with_it(service: Service) -> None:
    service.engine.scripts = [[items(0, adapter=False, exploring=True), done()]]
    await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    await eventually(lambda: len(kept(service)) == 1)
    (item,) = kept(service)[0]["items"]  # type: ignore[misc]
    assert item["exploring"] is True


class Broken(MemoryActivityLog):
    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        raise StorageUnavailable("away")


class Slow(MemoryActivityLog):
    def __init__(self, state: MemoryState) -> None:
        super().__init__(state)
        self.gate = asyncio.Event()

    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        await self.gate.wait()
        await super().add(user, kind, data)


async def test_a_generation_does_not_fail_with_its_impression(unstarted: Service) -> None:
    unstarted.activity = Broken(unstarted.state)
    await unstarted.start()
    before = counted("failed")
    answer = await unstarted.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    assert len(answer.items) == 1
    await eventually(lambda: counted("failed") == before + 1)


async def test_slow_storage_takes_no_call_and_no_memory() -> None:
    state = MemoryState(Settings())
    activity, before = Slow(state), counted("dropped")
    behind = Behind()
    impressions = Impressions(activity, AttributionSettings(impressions=1_000, tenant_impressions=0), behind)
    for number in range(MAX_UNDER_WAY + 7):
        impressions.keep(ALICE_KEY, shown(number))
    assert counted("dropped") == before + 7
    activity.gate.set()
    await behind.close()
    assert len(await activity.kept(ALICE_KEY, "impression")) == min(MAX_UNDER_WAY, Settings().attribution.impressions)


async def test_a_tenant_has_a_rate_of_its_own() -> None:
    state, now = MemoryState(Settings()), [0.0]
    activity = MemoryActivityLog(state)
    behind = Behind()
    impressions = Impressions(activity, AttributionSettings(tenant_impressions=1.0), behind, lambda: now[0])
    loud, quiet = UserKey("loud", "u"), UserKey("quiet", "u")
    for number in range(15):
        impressions.keep(loud, shown(number))
    impressions.keep(quiet, shown(0))
    now[0] = 2.0
    for number in range(15, 20):
        impressions.keep(loud, shown(number))
    await behind.close()
    assert [len(await activity.kept(user, "impression")) for user in (loud, quiet)] == [12, 1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_sample_has_its_share_and_is_the_same_everywhere(share: float) -> None:
    inside = [sampled(f"generation-{number}", share) for number in range(4_000)]
    assert inside == [sampled(f"generation-{number}", share) for number in range(4_000)]
    assert abs(sum(inside) / len(inside) - share) < 0.03


def read(record: Record) -> str:
    return str(json.loads(record.data)["generation_id"])


async def test_what_is_not_in_the_sample_is_not_kept() -> None:
    activity = MemoryActivityLog(MemoryState(Settings()))
    behind = Behind()
    impressions = Impressions(activity, AttributionSettings(impression_share=0.5, tenant_impressions=0), behind)
    for number in range(100):
        impressions.keep(ALICE_KEY, shown(number))
    await behind.close()
    found = [read(record) for record in await activity.kept(ALICE_KEY, "impression")]
    assert found == [f"g{number}" for number in range(100) if sampled(f"g{number}", 0.5)]
