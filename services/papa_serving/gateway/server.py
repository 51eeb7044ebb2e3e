"""The gateway as a whole: wires the services, binds, serves and drains."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from papa_serving.contracts.channels import is_loopback
from papa_serving.gateway.api.catalogue import CatalogueService
from papa_serving.gateway.api.dead_letters import DeadLetterService
from papa_serving.gateway.api.experiments import ExperimentService
from papa_serving.gateway.api.feedback import FeedbackService
from papa_serving.gateway.api.generation import GenerationService
from papa_serving.gateway.api.health import SERVICES, InfoService, Readiness
from papa_serving.gateway.api.recommend import RecommendService
from papa_serving.gateway.api.users import UserService
from papa_serving.gateway.auth.bearer import open_authenticator
from papa_serving.gateway.auth.identity import Authenticate
from papa_serving.gateway.auth.tls import server_credentials
from papa_serving.gateway.backends import Backends, KnownBackbone, KnownEncoder
from papa_serving.gateway.behind import Behind
from papa_serving.gateway.conversion.catalogue_items import ItemReader
from papa_serving.gateway.conversion.events import EventReader
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.gateway.experiments import Trials
from papa_serving.gateway.impressions import Impressions
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.rpc.edge import TRANSPORT_FACTOR, Edge
from papa_serving.gateway.transfer import Adopter, Merger
from papa_serving.settings import AttributionSettings, GatewaySettings
from papa_serving.settings.addresses import CannotBind, host_port
from papa_serving.settings.exposure import exposed_gateway
from papa_serving.stubs.serving.v1 import (
    catalogue_pb2_grpc,
    dead_letter_pb2_grpc,
    experiment_pb2_grpc,
    feedback_pb2_grpc,
    generation_pb2_grpc,
    info_pb2_grpc,
    recommend_pb2_grpc,
    user_pb2_grpc,
)

log = logging.getLogger(__name__)

MAX_PENDING = 4096
WINDOW = 64 * 2**10
MIN_PING_MS = 10_000
HANDSHAKE_MS = 10_000
"""The most for a TLS and HTTP/2 handshake; gRPC's default of two minutes lets silent sockets use up descriptors."""
IDLE_MS = 300_000
"""A connection without a call is asked to end after this time; clients connect anew by themselves."""


class Gateway:
    """One gRPC server with everything in it."""

    def __init__(
        self,
        settings: GatewaySettings,
        backends: Backends,
        authenticate: Authenticate | None = None,
        engine_token: Callable[[], str] = str,
        overdraw: float = 1.0,
        attribution: AttributionSettings = AttributionSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`authenticate` replaces the authenticator that the settings describe, `engine_token` gives what the engine is
        shown, `overdraw` is the engine's default, to tell callers.

        Raises ValueError for keys or certificates that cannot be used, and for a gateway that strangers could call.
        """
        self._settings, self._backends, self._overdraw = settings, backends, overdraw
        self._attribution, self._behind = attribution, Behind()
        self._impressions = Impressions(backends.activity, attribution, self._behind)
        self._trials = Trials(backends.activity, attribution.experiments, self._behind)
        self._warning = "" if authenticate else exposed_gateway(settings)
        self._credentials = server_credentials(settings.tls)
        authenticate = authenticate or open_authenticator(settings.auth)
        self._drain, self._pictures = Drain(), PictureReader(settings.max_image_pixels)
        self._engine = EngineClient(settings.generator, engine_token, settings.engine_channel_age)
        self._readiness = Readiness(self._engine, backends.items, backends.catalogues, self._drain)
        edge = Edge(authenticate, settings)
        self._server = _server(edge, settings)
        self._probes = None if settings.health_port is None else _server(edge, settings)
        self._add_services()
        self.address = self.health_address = ""

    async def start(self) -> None:
        """Binds and serves. Raises CannotBind."""
        host, port, credentials = self._settings.host, self._settings.port, self._credentials
        self.address = _bind(self._server, "gRPC", host, port, credentials)
        if self._warning:
            log.warning("%s", self._warning)
        if credentials is None and self._settings.auth.mode != "none" and not is_loopback(self.address):
            log.warning("tokens travel unencrypted to this gateway: set gateway.tls, or end TLS right before it")
        if self._probes is not None:
            self.health_address = _bind(self._probes, "health", host, self._settings.health_port or 0, None)
            await self._probes.start()
        await self._readiness.start()
        await self._server.start()
        self._trials.begin()

    async def drain(self) -> None:
        """NOT_SERVING first; then no new calls, and up to drain_seconds in all for those that run."""
        deadline = time.monotonic() + self._settings.drain_seconds
        await self._readiness.leave()
        await asyncio.sleep(min(self._settings.notice_seconds, self._settings.drain_seconds))
        self._drain.begin()
        await self._server.stop(max(0.0, deadline - time.monotonic()))
        await self.close()

    async def close(self) -> None:
        """Ends what still runs and closes every connection."""
        await self._readiness.leave()
        await self._server.stop(None)
        if self._probes is not None:
            await self._probes.stop(None)
        await self._pictures.close()
        await self._engine.close()
        await self._trials.close()
        await self._behind.close()
        await self._backends.close()

    def _add_services(self) -> None:
        limits, backends = self._settings, self._backends
        backbone = KnownBackbone(backends.items)
        reader = EventReader(limits, backbone, self._pictures, backends.catalogues, self._attribution)
        adopter = Adopter(self._engine, backends.users, backends.revisions, backends.log)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationService(limits, self._engine, backbone, self._impressions, self._trials), self._server
        )
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(
            FeedbackService(limits, backends.log, reader, self._drain, self._trials), self._server
        )
        user_pb2_grpc.add_UserServiceServicer_to_server(
            UserService(
                backends.users,
                backends.revisions,
                backends.log.partitions,
                self._drain,
                adopter,
                Merger(backends),
                backends.activity,
            ),
            self._server,
        )
        info = InfoService(limits, backends, self._overdraw, self._attribution)
        info_pb2_grpc.add_InfoServiceServicer_to_server(info, self._server)
        experiment_pb2_grpc.add_ExperimentServiceServicer_to_server(ExperimentService(self._trials), self._server)
        dead_letter_pb2_grpc.add_DeadLetterServiceServicer_to_server(DeadLetterService(backends.log), self._server)
        encoder = KnownEncoder(self._engine)
        items = ItemReader(limits, backbone, encoder, self._pictures)
        catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server(
            CatalogueService(limits, backends.catalogues, self._engine, encoder, items, self._drain), self._server
        )
        recommend_pb2_grpc.add_RecommendServiceServicer_to_server(
            RecommendService(
                limits,
                backends.catalogues,
                self._engine,
                backends.seen,
                backbone,
                self._pictures,
                self._impressions,
            ),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, self._server)
        if self._probes is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, self._probes)
        if limits.auth.mode == "none" if limits.reflection is None else limits.reflection:
            names = (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)


def _server(edge: Edge, settings: GatewaySettings) -> grpc.aio.Server:
    """A server without maximum_concurrent_rpcs, with which grpc.aio would refuse before the edge knows who calls."""
    return grpc.aio.server(interceptors=[edge], options=_options(settings))


def _bind(
    server: grpc.aio.Server, purpose: str, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> str:
    """Returns the bound host:port. Raises CannotBind."""
    try:
        if credentials is None:
            return host_port(host, server.add_insecure_port(host_port(host, port)))
        return host_port(host, server.add_secure_port(host_port(host, port), credentials))
    except RuntimeError as error:
        raise CannotBind(purpose, host, port) from error


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    return [
        # Two gateways on one port would share it silently.
        ("grpc.so_reuseport", 0),
        # Far above the edge's own limit, which refuses in words; beyond this one the library resets streams.
        ("grpc.max_concurrent_streams", MAX_PENDING),
        ("grpc.max_receive_message_length", TRANSPORT_FACTOR * settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A window that does not grow with what the network could carry: of a message that nobody reads yet, no more
        # than this arrives.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW),
        # Calls that nobody has looked at yet. Beyond the first number the library drops some, beyond the second all,
        # each with a bare CANCELLED; its own numbers, 1000 and 3000, are those of one caller's burst.
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
        # Clients may ping, also without a call, and dead ones are found.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.max_connection_age_ms", round(settings.max_connection_age * 1_000)),
        ("grpc.max_connection_age_grace_ms", round(settings.connection_grace * 1_000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]
