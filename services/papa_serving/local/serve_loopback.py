"""Restricts the engine's port to callers on this machine.

Serve's gRPC proxy always listens on all interfaces, without TLS or credentials. In a cluster a network policy protects
it. On a single machine this module does: Serve calls the function below to register the service, and the function
refuses all peers that are not on loopback.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import grpc

from papa_serving.stubs.engine.v1 import engine_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:[::ffff:127.", "unix:")


def add_engine_for_loopback(servicer: Any, server: Any) -> None:
    """Registers the service; Serve's option grpc_servicer_functions names this function.

    `server` is Serve's own object, which makes the handler of each method with its service_handler_factory.
    """
    factory = server.service_handler_factory
    server.service_handler_factory = lambda **method: _for_loopback(factory(**method))
    try:
        engine_pb2_grpc.add_EngineServiceServicer_to_server(servicer, server)
    finally:
        server.service_handler_factory = factory


def _for_loopback(handler: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        await _check(context)
        async for message in handler(request, context):
            yield message

    async def unary(request: Any, context: Context) -> Any:
        await _check(context)
        return await handler(request, context)

    return stream if inspect.isasyncgenfunction(handler) else unary


async def _check(context: Context) -> None:
    if not unquote(context.peer()).startswith(_LOOPBACK):
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this engine serves its own machine only")
