"""Processes of the schedules with the real thing: a generator, and a trainer whose update is PAPA on a tiny backbone.

The generator is the class that Ray Serve runs, engine and caches and all, behind a grpc.aio server instead of Serve's
proxy. Importing this module takes torch, so that only the nursery of such schedules does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.deployment import GeneratorReplica
from papa_serving.generator.wiring import backbone_info
from papa_serving.settings import GateSettings, Settings
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from papa_serving.trainer.papa_updater import PapaUpdater

import tests.chaos.children as children
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import load_denoiser
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone

_ONE_AT_A_TIME = threading.Lock()

UPDATE = replace(DEFAULT_UPDATE, like_rows=6, dislike_rows=4, steps=2)


def furnish(folder: Path) -> tuple[BackboneInfo, bytes]:
    """Writes the backbone into the folder; what is announced of it, and an item to like.

    One thread at a time: while one loads a model, what others make lies on the device "meta" as well.
    """
    with _ONE_AT_A_TIME:
        write_tiny_backbone(folder)
        info = backbone_info(str(folder), load_denoiser(str(folder), DEFAULT_LORA))
    return info, pack_sample(np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8))


def trainer() -> None:
    """A trainer until SIGTERM. The probe is off: pictures of random weights have no diversity to lose."""
    torch.set_num_threads(1)
    denoiser = load_denoiser(Settings().backbone, DEFAULT_LORA)
    children.run_trainer(PapaUpdater(denoiser, UPDATE, GateSettings(probe_samples=0)))


def generator() -> None:
    """A generator until it is killed."""
    children.prepare()
    asyncio.run(_generate(Settings()))


async def _generate(settings: Settings) -> None:
    replica = object.__new__(GeneratorReplica)
    await replica.__init__(settings)  # type: ignore[misc]  # as Serve does
    server = grpc.aio.server()
    engine_pb2_grpc.add_EngineServiceServicer_to_server(_Proxy(replica), server)
    server.add_insecure_port(settings.gateway.generator)
    await server.start()
    await server.wait_for_termination()


class _Proxy(engine_pb2_grpc.EngineServiceServicer):
    """Imitates Serve's proxy with the server's own context."""

    def __init__(self, replica: GeneratorReplica) -> None:
        self._replica = replica

    async def Run(self, request: engine_pb2.RunRequest, context: Any) -> AsyncIterator[engine_pb2.RunResponse]:
        async for response in self._replica.Run(request, context):
            yield response

    async def PackAdapter(self, request: engine_pb2.PackAdapterRequest, context: Any) -> engine_pb2.PackAdapterResponse:
        return await self._replica.PackAdapter(request, context)
