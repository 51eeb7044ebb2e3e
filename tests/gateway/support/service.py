"""A whole gateway on a free port of this machine, in front of a fake engine and stores in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from papa_serving.attribution.memory import MemoryActivityLog
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.contracts.attribution import ActivityLog
from papa_serving.contracts.catalogue import Catalogues
from papa_serving.contracts.feedback import DeadLetter, FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.recommending import SeenItems
from papa_serving.gateway.auth.identity import Authenticate
from papa_serving.gateway.backends import Backends, quotas_of
from papa_serving.gateway.server import Gateway
from papa_serving.settings import (
    AttributionSettings,
    CatalogueSettings,
    FeedbackSettings,
    GatewaySettings,
    Settings,
)
from papa_serving.store.memory import MemorySeenItems, MemoryState
from papa_serving.stubs.serving.v1 import (
    catalogue_pb2_grpc,
    dead_letter_pb2_grpc,
    feedback_pb2_grpc,
    generation_pb2_grpc,
    recommend_pb2_grpc,
    user_pb2_grpc,
)

from tests.gateway.support.doubles import Items, Log, Revisions, Users
from tests.gateway.support.fake_engine import FakeEngine

DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    error_details_pb2.RetryInfo,
)

OVERDRAW = 2.5
"""What the engine is said to do by default."""


class Service:
    """Started by the fixture; `stub` attributes speak to it over a real socket."""

    def __init__(self, attribution: AttributionSettings = AttributionSettings()) -> None:  # noqa: B008 - frozen
        self.state = MemoryState(Settings(feedback=FeedbackSettings(partitions=4), attribution=attribution))
        self.log, self.users, self.items = Log(self.state), Users(self.state), Items(self.state)
        self.revisions = Revisions()
        self.catalogues: Catalogues = MemoryCatalogues(CatalogueSettings(max_items=50, max_catalogues=3))
        self.activity: ActivityLog = MemoryActivityLog(self.state)
        self.seen: SeenItems | None = None
        self.engine = FakeEngine()
        self.gateway: Gateway
        self.channel: grpc.aio.Channel

    async def start(self, authenticate: Authenticate | None = None, engine_up: bool = True, **settings: Any) -> None:
        if engine_up:
            await self.engine.start()
        address = settings.pop("generator", f"127.0.0.1:{self.engine.port}")
        limits = GatewaySettings(
            port=0, generator=address, **{"notice_seconds": 0.0, "drain_seconds": 60.0, **settings}
        )
        quotas, seen = quotas_of(self.state.settings), MemorySeenItems(self.state) if self.seen is None else self.seen
        parts = (self.log, self.users, self.items, self.revisions, quotas, self.catalogues, self.activity, seen)
        backends = Backends(*parts)
        self.gateway = Gateway(
            limits, backends, authenticate, overdraw=OVERDRAW, attribution=self.state.settings.attribution
        )
        await self.gateway.start()
        self.channel = grpc.aio.insecure_channel(self.gateway.address)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(self.channel)
        self.user = user_pb2_grpc.UserServiceStub(self.channel)
        self.catalogue = catalogue_pb2_grpc.CatalogueServiceStub(self.channel)
        self.recommend = recommend_pb2_grpc.RecommendServiceStub(self.channel)
        self.dead_letters = dead_letter_pb2_grpc.DeadLetterServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def stop(self) -> None:
        await self.channel.close()
        await self.gateway.close()
        await self.engine.die()

    async def serving(self, service: str) -> bool:
        response = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def until_serving(self, service: str, expected: bool = True) -> None:
        """Waits by watching, as a load balancer does."""
        wanted = health_pb2.HealthCheckResponse.SERVING if expected else health_pb2.HealthCheckResponse.NOT_SERVING
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
        async for response in watch:
            if response.status == wanted:
                break
        watch.cancel()

    async def reflected(self) -> set[str]:
        """The services that reflection names."""
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter([request])):
            return {each.name for each in response.list_services_response.service}
        return set()


class Refusal:
    """A failed call, taken apart."""

    def __init__(self, failure: grpc.aio.AioRpcError) -> None:
        self.code, self.message = failure.code(), failure.details()
        self.trailers = dict(failure.trailing_metadata())
        status = rpc_status.from_call(failure)
        assert status is not None, f"no google.rpc.Status in {failure}"
        found = {}
        for detail in status.details:
            for kind in DETAILS:
                message = kind()
                if detail.Unpack(message):
                    found[kind] = message
        info = found[error_details_pb2.ErrorInfo]
        self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
        bad_request = found.get(error_details_pb2.BadRequest)
        self.violations = {} if bad_request is None else {v.field: v.description for v in bad_request.field_violations}
        quota = found.get(error_details_pb2.QuotaFailure)
        self.quotas = set() if quota is None else {violation.subject for violation in quota.violations}
        retry = found.get(error_details_pb2.RetryInfo)
        self.retry_after = None if retry is None else retry.retry_delay.ToMilliseconds() / 1000


async def refusal(call: Any) -> Refusal:
    """The typed error that awaiting `call`, or reading it to its end, gives."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as failure:
        return Refusal(failure)
    raise AssertionError("the call succeeded")


async def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something that another task brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it may be brought about anywhere
            await asyncio.sleep(0.005)


async def bury(service: Service, user: UserKey, *event_ids: str) -> list[DeadLetter]:
    """Lets events of a user die, and returns that user's dead letters."""
    await service.log.append([FeedbackEvent(event_id, user, -0.5, item_id="i") for event_id in event_ids])
    partition = user.partition(4)
    lease = await service.log.acquire(partition, "trainer", 60)
    assert lease is not None
    events = [event for event in await service.log.read(lease, "", 100) if event.user == user]
    await service.log.bury(lease, events, "poison")
    return [letter for letter in await service.log.dead_letters(partition) if letter.event.user == user]
