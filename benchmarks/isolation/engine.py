"""`python -m benchmarks.isolation.engine`: the generator of PAPA_* variables in a process of its own, without Ray."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from papa_serving.contracts.errors import PapaError
from papa_serving.generator import wire
from papa_serving.generator.generation import Generator
from papa_serving.generator.wiring import Stores, assemble
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_users
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc


class EngineService(engine_pb2_grpc.EngineServiceServicer):
    """Answers as the generator's deployment does."""

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

    async def RenderItem(  # noqa: N802
        self, request: engine_pb2.RenderItemRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.RenderItemResponse:
        return engine_pb2.RenderItemResponse(error=wire.run_error(PapaError("not measured")))

    async def Embed(  # noqa: N802
        self, request: engine_pb2.EmbedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EmbedResponse:
        return engine_pb2.EmbedResponse(error=wire.run_error(PapaError("not measured")))

    async def Judge(  # noqa: N802
        self, request: engine_pb2.JudgeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.JudgeResponse:
        return engine_pb2.JudgeResponse(error=wire.run_error(PapaError("not measured")))

    async def PackAdapter(  # noqa: N802
        self, request: engine_pb2.PackAdapterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.PackAdapterResponse:
        return engine_pb2.PackAdapterResponse(error=wire.run_error(PapaError("not measured")))


async def serve(settings: Settings) -> None:
    """Prints the address, then serves until standard input ends."""
    items = open_items(settings)
    room = assemble(settings, Stores(open_users(settings), open_revisions(settings), items))
    await items.publish_backbone(room.backbone_info)
    room.engine.start()
    server = grpc.aio.server()
    engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineService(room.generator), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)
    room.engine.stop(10.0)


if __name__ == "__main__":
    asyncio.run(serve(Settings()))
