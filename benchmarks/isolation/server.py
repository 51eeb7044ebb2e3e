"""The service in one process: the real gateway and the real engine over the shipped backbone, state in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import torch

from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import load_denoiser
from services.contracts.errors import PapaError
from services.feedback.memory_log import MemoryFeedbackLog
from services.gateway.backends import Backends
from services.gateway.server import Gateway
from services.generator import wire
from services.generator.adapters import Adapters
from services.generator.assembly import backbone_info
from services.generator.engine import Engine, EngineConfig
from services.generator.generation import Defaults, Generator
from services.generator.pictures import Pictures
from services.generator.prompting import Prompter
from services.generator.slots import Slots
from services.settings import GatewaySettings, RateSettings, Settings
from services.store.memory_items import MemoryItemStore
from services.store.memory_revisions import MemoryRevisionStore
from services.store.memory_state import MemoryState
from services.store.memory_users import MemoryUserDirectory
from services.stubs.engine.v1 import engine_pb2, engine_pb2_grpc


class EngineService(engine_pb2_grpc.EngineServiceServicer):
    """What the generator's deployment does, without Ray."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def Run(  # noqa: N802 - the proto names it
        self, request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[engine_pb2.RunResponse]:
        try:
            async for event in self._generator.run(wire.spec_from_wire(request)):
                yield wire.event_to_wire(event)
        except PapaError as error:
            yield wire.error_to_wire(error)

    async def PackAdapter(  # noqa: N802
        self, request: engine_pb2.PackAdapterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.PackAdapterResponse:
        return engine_pb2.PackAdapterResponse(error=wire.run_error(PapaError("not measured")))


async def serve(rate: float, burst: float) -> None:
    """Prints the gateway's address, then serves until standard input ends."""
    settings = Settings()
    torch.set_num_threads(1)
    denoiser = load_denoiser("fashion_mnist", DEFAULT_LORA)
    state = MemoryState(settings)
    users, items, revisions = MemoryUserDirectory(state), MemoryItemStore(state), MemoryRevisionStore()
    slots = Slots(16, denoiser.layout.size, denoiser.device, denoiser.dtype)
    engine = Engine(denoiser, slots, EngineConfig(16, 256, DEFAULT_UPDATE.adapt_from, clip=True))
    adapters = Adapters(users, revisions, denoiser, slots, 64)
    await items.publish_backbone(backbone_info("fashion_mnist", denoiser))
    engine.start()
    server = grpc.aio.server()
    generator = Generator(
        engine, adapters, items, Defaults("dpmpp_2m", 12), Prompter(denoiser, 1.0), Pictures(denoiser)
    )
    engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineService(generator), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    limits = GatewaySettings(port=0, generator=f"127.0.0.1:{port}", rates=RateSettings(user=rate, user_burst=burst))
    gateway = Gateway(limits, Backends(MemoryFeedbackLog(state), users, items, revisions))
    await gateway.start()
    print(gateway.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await gateway.close()
    await server.stop(None)
    engine.stop(10.0)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2])))
