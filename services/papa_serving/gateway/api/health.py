"""What a gateway says of itself: its limits and backbone, and its health by grpc.health.v1.

There is one health status per service, and "" for the process itself.
"""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from papa_serving.contracts.catalogue import CatalogueKey, Catalogues
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
RECOMMEND = "papa.serving.v1.RecommendService"
ON_GENERATOR = frozenset({GENERATION, RECOMMEND})
"""Services that need the generator."""
ON_CATALOGUES = frozenset({CATALOGUE, RECOMMEND})
"""Services that need the Redis of the catalogues."""
ON_STORAGE = frozenset({FEEDBACK, USER, DEAD_LETTERS, CATALOGUE, RECOMMEND, EXPERIMENTS, INFO})
"""Services that need the Redis of redis.url."""
SERVICES = (GENERATION, RECOMMEND, FEEDBACK, USER, DEAD_LETTERS, CATALOGUE, EXPERIMENTS, INFO)
"""The gateway's own services."""
NO_CATALOGUE = CatalogueKey("", "")
"""No caller's: to ask for it shows whether the catalogues answer."""
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
    """Keeps the statuses up to date: each service follows the generator, the Redis of redis.url and that of the
    catalogues, as far as it needs them."""

    def __init__(self, generator: EngineClient, items: ItemStore, catalogues: Catalogues, drain: Drain) -> None:
        self.servicer = HealthService(drain)
        self._generator, self._items, self._catalogues = generator, items, catalogues
        self._working: dict[frozenset[str], bool] = dict.fromkeys((ON_GENERATOR, ON_STORAGE, ON_CATALOGUES), False)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to follow. Every service is NOT_SERVING until it has been seen to work."""
        for service in SERVICES:
            await self.servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        followed = (
            self._follow_generator(),
            self._follow("storage", ON_STORAGE, self._items.backbone_info),
            self._follow("the catalogues' Redis", ON_CATALOGUES, lambda: self._catalogues.encoder(NO_CATALOGUE)),
        )
        self._tasks = [asyncio.create_task(each) for each in followed]

    async def leave(self) -> None:
        """Sets every service to NOT_SERVING for good."""
        for task in self._tasks:
            task.cancel()
        await self.servicer.enter_graceful_shutdown()

    async def _follow_generator(self) -> None:
        async with aclosing(self._generator.readiness(POLL_SECONDS)) as readiness:
            async for ready in readiness:
                await self._set(ON_GENERATOR, ready)

    async def _follow(self, name: str, services: frozenset[str], ask: Callable[[], Awaitable[object]]) -> None:
        ready = False
        while True:
            before = ready
            try:
                await ask()
                ready = True
            except PapaError as error:
                ready = False
                if before:
                    log.warning("%s does not answer any more: %s", name, error.message)
            if ready and not before:
                log.info("%s answers", name)
            await self._set(services, ready)
            await asyncio.sleep(POLL_SECONDS)

    async def _set(self, services: frozenset[str], works: bool) -> None:
        """Notes whether what these services need works."""
        self._working[services] = works
        for service in services:
            ready = all(each for needing, each in self._working.items() if service in needing)
            status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
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
