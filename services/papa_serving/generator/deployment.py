"""The generator on Ray Serve: the one file of this room that knows Ray.

Serve's gRPC proxy, which stays inside the cluster, routes EngineService/Run to a replica; each has its own engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext

from papa_serving import logs, tracing
from papa_serving.contracts.errors import PapaError, Unauthenticated
from papa_serving.contracts.identity import UserKey
from papa_serving.generator import wire
from papa_serving.generator.access import EngineAccess
from papa_serving.generator.adapters import forget_deleted_users
from papa_serving.generator.wiring import Stores, assemble, defaults
from papa_serving.settings import GeneratorSettings, Settings
from papa_serving.settings.exposure import exposed_engine
from papa_serving.settings.workers import (
    absolute,
    metrics_environment,
    settings_of_environment,
    with_engine_token,
    with_secrets,
    without_secrets,
)
from papa_serving.store import open_items, open_revisions, open_users
from papa_serving.store.census import refuse_emptied
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.watched_file import current_secret

_log = logging.getLogger(__name__)

SERVICER = "papa_serving.stubs.engine.v1.engine_pb2_grpc.add_EngineServiceServicer_to_server"
"""The servicer that Serve's gRPC options must name."""

CPUS = 0.5
"""The CPUs that a replica reserves in Ray. generator.threads sets its torch threads."""

FORGET_SECONDS = 60.0
"""How long a deleted user's adapters may stay in a replica's caches when nobody asks for that user."""


LIVE = ("sampler", "steps", "exploration", "teaching", "overdraw", "guidance")
"""Settings of the generator that may be changed while it runs, as Serve's user_config."""


class GeneratorReplica:
    """One engine and its stores."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        logs.configure(settings.log)
        settings = with_engine_token(with_secrets(settings))
        self._access = EngineAccess(current_secret(settings.generator.token, settings.generator.token_file))
        if exposed := exposed_engine(settings.generator):
            _log.warning("%s", exposed)
        tracing.begin(settings.tracing, "papa-generator")
        stores = Stores(open_users(settings), open_revisions(settings), open_items(settings))
        room = assemble(settings, stores)
        await refuse_emptied(stores.items, stores.users, stores.revisions)
        await stores.items.publish_backbone(room.backbone_info)
        self._settings = settings.generator
        self._image_shape, self._encoder = room.backbone_info.image_shape, room.encoder
        self._engine, self._generator, self._packer = room.engine, room.generator, room.packer
        self._tastes = room.tastes
        self._forgetting = asyncio.create_task(forget_deleted_users(stores.users, room.adapters, FORGET_SECONDS))
        self._engine.start()
        # The readiness probe of the pod looks for this file of a started replica.
        self._serving = settings.data_dir / "serving"
        self._serving.touch()
        _log.info(
            "the generator is ready",
            extra={"backbone_hash": room.backbone_info.backbone_hash, "device": settings.generator.device},
        )

    # Serve passes its context to methods that name it so.
    async def Run(  # noqa: N802 - the RPC's name
        self, request: engine_pb2.RunRequest, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[engine_pb2.RunResponse]:
        """EngineService.Run; errors travel in the stream, because Serve has no way to give a rich status."""
        try:
            self._admit(grpc_context)
            spec = wire.spec_from_wire(request)
            logs.request_id.set(spec.request_id)
            async with aclosing(self._generator.run(spec)) as events:
                async for event in events:
                    yield wire.event_to_wire(event)
        except PapaError as error:
            _log.info("a generation was refused", extra={"reason": error.reason, "detail": error.message})
            yield wire.error_to_wire(error)
        except Exception:
            _log.exception("a generation failed")
            yield wire.error_to_wire(PapaError("the generator failed; its log has the request id"))

    async def RenderItem(  # noqa: N802
        self, request: engine_pb2.RenderItemRequest, grpc_context: RayServegRPCContext
    ) -> engine_pb2.RenderItemResponse:
        """EngineService.RenderItem."""
        try:
            self._admit(grpc_context)
            wire.check_render_request(request)
            logs.request_id.set(request.request_id)
            user, encoding = UserKey(request.tenant, request.user), wire.encoding_from_wire(request.image)
            return wire.rendered_to_wire(await self._generator.render(user, request.item_id, encoding))
        except PapaError as error:
            _log.info("an item was refused", extra={"reason": error.reason, "detail": error.message})
            return engine_pb2.RenderItemResponse(error=wire.run_error(error))
        except Exception:
            _log.exception("an item could not be encoded")
            return engine_pb2.RenderItemResponse(error=wire.run_error(PapaError("the generator failed")))

    async def PackAdapter(  # noqa: N802
        self, request: engine_pb2.PackAdapterRequest, grpc_context: RayServegRPCContext
    ) -> engine_pb2.PackAdapterResponse:
        """EngineService.PackAdapter."""
        try:
            self._admit(grpc_context)
            wire.check_pack_request(request)
            logs.request_id.set(request.request_id)
            return engine_pb2.PackAdapterResponse(packed=await asyncio.to_thread(self._packer.pack, request))
        except PapaError as error:
            _log.info("an adapter was refused", extra={"reason": error.reason, "detail": error.message})
            return engine_pb2.PackAdapterResponse(error=wire.run_error(error))
        except Exception:
            _log.exception("an adapter could not be packed")
            return engine_pb2.PackAdapterResponse(error=wire.run_error(PapaError("the generator failed")))

    async def Embed(  # noqa: N802
        self, request: engine_pb2.EmbedRequest, grpc_context: RayServegRPCContext
    ) -> engine_pb2.EmbedResponse:
        """EngineService.Embed."""
        try:
            self._admit(grpc_context)
            logs.request_id.set(request.request_id)
            made = await wire.embed(self._engine.embedder, self._encoder, request, self._image_shape)
            return engine_pb2.EmbedResponse(embedded=made)
        except PapaError as error:
            _log.info("pictures were not embedded", extra={"reason": error.reason, "detail": error.message})
            return engine_pb2.EmbedResponse(error=wire.run_error(error))
        except Exception:
            _log.exception("pictures could not be embedded")
            return engine_pb2.EmbedResponse(error=wire.run_error(PapaError("the generator failed")))

    async def Judge(  # noqa: N802
        self, request: engine_pb2.JudgeRequest, grpc_context: RayServegRPCContext
    ) -> engine_pb2.JudgeResponse:
        """EngineService.Judge."""
        try:
            self._admit(grpc_context)
            logs.request_id.set(request.request_id)
            return engine_pb2.JudgeResponse(judgement=await self._tastes.judge(request))
        except PapaError as error:
            _log.info("nothing is said of a taste", extra={"reason": error.reason, "detail": error.message})
            return engine_pb2.JudgeResponse(error=wire.run_error(error))
        except Exception:
            _log.exception("a taste could not be told")
            return engine_pb2.JudgeResponse(error=wire.run_error(PapaError("the generator failed")))

    def _admit(self, context: RayServegRPCContext) -> None:
        """Raises Unauthenticated, which is the call's status as well, for a caller without the token."""
        try:
            self._access.check(context.invocation_metadata())
        except Unauthenticated as error:
            context.set_code(grpc.StatusCode.UNAUTHENTICATED)
            context.set_details(error.message)
            raise

    def reconfigure(self, changes: dict[str, object]) -> None:
        """Serve calls it with the user_config, when the replica starts and whenever that is changed.

        Running generations keep their values. Settings that are not named keep their configured values.
        """
        settings = reconfigured(self._settings, changes)
        self._generator.change(defaults(settings), settings.guidance)
        self._tastes.teaching = settings.teaching
        _log.info("the defaults of generations", extra={name: getattr(settings, name) for name in LIVE})

    def check_health(self) -> None:
        """Serve replaces a replica whose engine has ended."""
        if not self._engine.alive:
            raise RuntimeError("the engine's thread has ended")
        if self._forgetting.done():
            raise RuntimeError("the caches are not checked for deleted users any more")

    def __del__(self) -> None:
        # Serve calls this once running generations are drained; a replica that never came up has no engine.
        if engine := getattr(self, "_engine", None):
            self._serving.unlink(missing_ok=True)
            self._forgetting.cancel()
            engine.stop()
            tracing.end()


def reconfigured(settings: GeneratorSettings, changes: dict[str, object]) -> GeneratorSettings:
    """The settings with those of LIVE changed. Raises ValueError for others and for values that do not fit."""
    if strange := set(changes) - set(LIVE):
        raise ValueError(f"only {', '.join(LIVE)} can be changed while the generator runs, not {sorted(strange)}")
    return GeneratorSettings.model_validate(settings.model_dump() | changes)


def app(args: dict[str, object]) -> serve.Application:
    """The Serve application; its configuration is the environment's (PAPA_*), so `args` must be empty."""
    return application(settings_of_environment("generator", args))


def application(settings: Settings) -> serve.Application:
    """The Serve application of these settings."""
    settings = without_secrets(absolute(settings))
    mine = settings.generator
    scaling: dict[str, Any] = {"num_replicas": mine.replicas}
    if mine.max_replicas > mine.replicas:
        target = max(1, mine.max_rows // 8)
        limits = {"min_replicas": mine.replicas, "max_replicas": mine.max_replicas, "target_ongoing_requests": target}
        scaling = {"autoscaling_config": limits}
    deployment = serve.deployment(
        name="generator",
        # Every request holds at least one row, so that the engine's own bound is met first.
        max_ongoing_requests=mine.max_rows + mine.max_queued_rows,
        graceful_shutdown_timeout_s=mine.drain_seconds + 5,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        logging_config={"enable_access_log": False},
        ray_actor_options={
            "num_cpus": CPUS,
            "num_gpus": 1 if mine.device.startswith("cuda") else 0,
            "runtime_env": {"env_vars": metrics_environment(settings)},
        },
        **scaling,
    )
    return deployment(GeneratorReplica).bind(settings)
