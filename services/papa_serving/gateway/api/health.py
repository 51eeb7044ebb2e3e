"""What a gateway says of itself: its limits and backbone, and its health by grpc.health.v1.

There is one health status per service, and "" for the process itself.
"""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from contextlib import aclosing
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.items import ItemStore
from papa_serving.contracts.limits import (
    MAX_GENERATIONS,
    MAX_ID,
    MAX_NOTES_SIZE,
    MAX_PROMPT,
    MAX_RANKED,
    MAX_RANKED_IMAGES,
    MAX_RECOMMENDED,
    MAX_REMEMBERED_LABELS,
)
from papa_serving.gateway.backends import Backends
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.rpc.edge import Context
from papa_serving.settings import AttributionSettings, GatewaySettings
from papa_serving.stubs.serving.v1 import info_pb2, info_pb2_grpc

log = logging.getLogger(__name__)

GENERATION = "papa.serving.v1.GenerationService"
FEEDBACK = "papa.serving.v1.FeedbackService"
USER = "papa.serving.v1.UserService"
DEAD_LETTERS = "papa.serving.v1.DeadLetterService"
CATALOGUE = "papa.serving.v1.CatalogueService"
INFO = "papa.serving.v1.InfoService"
EXPERIMENTS = "papa.serving.v1.ExperimentService"
ON_STORAGE = (FEEDBACK, USER, DEAD_LETTERS, CATALOGUE, EXPERIMENTS, INFO)
"""Services whose health is that of the storage."""
RECOMMEND = "papa.serving.v1.RecommendService"
ON_GENERATOR = (GENERATION, RECOMMEND)
"""Services whose health is that of the generator."""
SERVICES = (*ON_GENERATOR, *ON_STORAGE)
"""The gateway's own services."""
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
POLL_SECONDS = 1.0


class HealthService(health.aio.HealthServicer):  # type: ignore[misc, name-defined]
    """The standard service. Its watches end when the gateway drains.

    The library's own `Watch` sends while it holds the lock that `set` needs: one watcher who does not read would freeze
    the status for everybody.
    """

    def __init__(self, drain: Drain) -> None:
        super().__init__()
        self._drain, self._changed = drain, asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Sends the status now and after each change, until the drain. Raises ShuttingDown."""
        sent = None
        while True:
            status, changed = self._server_status.get(request.service, UNKNOWN), self._changed
            async with self._drain.endless_wait():
                if status != sent:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
                await changed.wait()

    async def _set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        self._server_status[service] = status
        self._changed.set()
        self._changed = asyncio.Event()


class Readiness:
    """Keeps the statuses up to date. Generation follows the generator; all other services follow the
    Redis of redis.url."""

    def __init__(self, generator: EngineClient, items: ItemStore, drain: Drain) -> None:
        self.servicer = HealthService(drain)
        self._generator, self._items = generator, items
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to follow. Every service is NOT_SERVING until it has been seen to work."""
        await self._set(False, *SERVICES)
        self._tasks = [asyncio.create_task(self._follow_generator()), asyncio.create_task(self._follow_storage())]

    async def leave(self) -> None:
        """Sets every service to NOT_SERVING for good."""
        for task in self._tasks:
            task.cancel()
        await self.servicer.enter_graceful_shutdown()

    async def _follow_generator(self) -> None:
        async with aclosing(self._generator.readiness(POLL_SECONDS)) as readiness:
            async for ready in readiness:
                await self._set(ready, *ON_GENERATOR)

    async def _follow_storage(self) -> None:
        ready = False
        while True:
            before = ready
            try:
                await self._items.backbone_info()
                ready = True
            except PapaError as error:
                ready = False
                if before:
                    log.warning("storage does not answer any more: %s", error.message)
            if ready and not before:
                log.info("storage answers")
            await self._set(ready, *ON_STORAGE)
            await asyncio.sleep(POLL_SECONDS)

    async def _set(self, ready: bool, *services: str) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in services:
            await self.servicer.set(service, status)


class InfoService(info_pb2_grpc.InfoServiceServicer):
    """Reads the settings, and the backbone that a generator has announced."""

    def __init__(
        self, limits: GatewaySettings, backends: Backends, overdraw: float, attribution: AttributionSettings
    ) -> None:
        self._attribution = attribution
        self._items, quotas = backends.items, backends.quotas
        self._defaults = info_pb2.Defaults(overdraw=overdraw)
        self._version = importlib.metadata.version("papa-serving")
        self._limits = info_pb2.Limits(
            max_message_bytes=limits.max_message_bytes,
            max_events=limits.max_events,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_count=limits.max_count,
            max_steps=limits.max_steps,
            max_prompt_characters=MAX_PROMPT,
            max_id_characters=MAX_ID,
            max_generations=MAX_GENERATIONS,
            max_recommended=MAX_RECOMMENDED,
            max_ranked=MAX_RANKED,
            max_ranked_images=MAX_RANKED_IMAGES,
            max_notes_bytes=MAX_NOTES_SIZE,
        )
        self._quotas = info_pb2.Quotas(
            revisions=quotas.revisions,
            items=quotas.items,
            event_ids=quotas.event_ids,
            pending_events=quotas.pending_events,
            remembered_labels=MAX_REMEMBERED_LABELS,
        )

    async def GetServerInfo(
        self, request: info_pb2.GetServerInfoRequest, context: Context
    ) -> info_pb2.GetServerInfoResponse:
        answer = info_pb2.GetServerInfoResponse(
            version=self._version,
            limits=self._limits,
            defaults=self._defaults,
            quotas=self._quotas,
            event_weights=self._attribution.weights_of(caller.get().identity.tenant),
        )
        if (known := await self._items.backbone_info()) is not None:
            channels, height, width = known.image_shape
            answer.backbone.CopyFrom(
                info_pb2.Backbone(
                    name=known.name,
                    backbone_hash=known.backbone_hash,
                    channels=channels,
                    height=height,
                    width=width,
                    takes_prompt=known.takes_prompt,
                    vocabulary=known.vocabulary.words,
                )
            )
        return answer
