"""The edge, which every RPC passes: request id, identity, admission, metrics, span, and the one handler of errors.

Servicers return messages or raise PapaErrors; whatever else they raise is logged and answered with INTERNAL, which
tells the caller nothing but the request id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from papa_serving import tracing
from papa_serving.contracts.errors import InvalidRequest, PapaError, Status, Violation
from papa_serving.gateway.auth.identity import Authenticate
from papa_serving.gateway.rpc.admission import Caller, Meter, Places, caller, check_scope
from papa_serving.gateway.rpc.status import rich_status
from papa_serving.logs import request_id
from papa_serving.metrics import RPC_HANDLED, RPC_IN_FLIGHT, RPC_SECONDS
from papa_serving.settings import RateSettings

log = logging.getLogger(__name__)

PACKAGE = "papa.serving.v1"
PREFIX = f"/{PACKAGE}."
REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Codes that count as failures of the server; with all others the caller is at fault."""

Context = grpc.aio.ServicerContext[Any, Any]


class Unreadable:
    """Stands for a message whose bytes are not protobuf, so that it is refused like any other bad request."""


class CallerGone(Exception):
    """The caller went away while an answer was being sent."""


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handlers of this product's services; health and reflection pass untouched."""

    def __init__(self, authenticate: Authenticate, max_concurrent_rpcs: int, rates: RateSettings) -> None:
        self._authenticate = authenticate
        self._places, self._meter = Places(max_concurrent_rpcs, rates.tenant_calls), Meter(rates)
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns the wrapped handler of a method; None (UNIMPLEMENTED) for one that does not exist."""
        path = handler_call_details.method
        if path in self._handlers:
            return self._handlers[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith(PREFIX):
            return handler
        return self._handlers.setdefault(path, self._wrapped(path.removeprefix(PREFIX), handler))

    def _wrapped(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(request: Any, context: Context) -> Any:
            async with self._rpc(method, context):
                return await handler.unary_unary(_readable(request), context)

        async def stream(request: Any, context: Context) -> None:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            async with self._rpc(method, context):
                messages = _all_readable(request) if handler.request_streaming else _readable(request)
                async with aclosing(behaviour(messages, context)) as responses:
                    async for response in responses:
                        await _send(context, response)

        codec = {
            "request_deserializer": _forgiving(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, **codec)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.unary_unary_rpc_method_handler(answer, **codec)

    @asynccontextmanager
    async def _rpc(self, method: str, context: Context) -> AsyncIterator[None]:
        """One RPC from its arrival to its end. What it sets in context variables ends with the RPC's task."""
        started = time.monotonic()
        metadata = _begin(context)
        RPC_IN_FLIGHT.labels(method).inc()
        code = "OK"
        with _span(method, metadata) as span, self._places.place() as place:
            try:
                self._places.check_room()
                identity = await self._authenticate(metadata)
                check_scope(identity, method)
                place.assign_tenant(identity.tenant)
                caller.set(Caller(identity, self._meter, place))
                yield
            except (asyncio.CancelledError, GeneratorExit):
                code = "DEADLINE_EXCEEDED" if _expired(context) else "CANCELLED"
                raise
            except CallerGone:
                code = "CANCELLED"
            except Exception as error:
                code = _logged(method, error).status.name
                await _abort(context, _public(error))
            finally:
                RPC_IN_FLIGHT.labels(method).dec()
                RPC_HANDLED.labels(method, code).inc()
                RPC_SECONDS.labels(method).observe(time.monotonic() - started)
                _settle(span, code)


def _span(method: str, metadata: Mapping[str, str]) -> AbstractContextManager[tracing.Span]:
    """The span of one RPC ("Service/Method") by OpenTelemetry's conventions for gRPC servers, a child of the caller's
    span where the metadata names one."""
    service, _, name = method.partition("/")
    tracing.continue_from(metadata.get("traceparent", ""))
    attributes = {"rpc.system": "grpc", "rpc.service": f"{PACKAGE}.{service}", "rpc.method": name}
    return tracing.span(f"{PACKAGE}.{method}", "server", attributes=attributes)


def _settle(span: tracing.Span, code: str) -> None:
    """Notes the name of the gRPC status code on the span."""
    span.note({"rpc.grpc.status_code": grpc.StatusCode[code].value[0]})
    span.settle(code if code in _FAULTS else "")


async def _send(context: Context, response: Any) -> None:
    """Sends one message. Raises CallerGone where grpc.aio reports only that `execute_batch failed`."""
    try:
        await context.write(response)
    except grpc.aio.BaseError as error:
        raise CallerGone from error


def _begin(context: Context) -> dict[str, str]:
    """Names the call for the logs and the caller; returns its metadata."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    known = _REQUEST_ID.fullmatch(metadata.get(REQUEST_ID_KEY, ""))
    request_id.set(known.group() if known else uuid.uuid4().hex)
    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id.get()),))
    return metadata


def _public(error: Exception) -> PapaError:
    """What the caller may know of `error`."""
    if isinstance(error, PapaError) and error.status is not Status.INTERNAL:
        return error
    return PapaError("internal error; the request id finds it in the logs")


def _logged(method: str, error: Exception) -> PapaError:
    public = _public(error)
    if public is not error:
        log.error("%s failed", method, exc_info=error)
    elif public.status is Status.UNAVAILABLE:
        log.warning("%s: %s", method, public.message, extra={"reason": public.reason})
    else:
        log.debug("%s: %s", method, public.message, extra={"reason": public.reason})
    return public


async def _abort(context: Context, error: PapaError) -> None:
    status = rpc_status.to_status(rich_status(error, request_id.get()))
    trailers = (*status.trailing_metadata, (REQUEST_ID_KEY, request_id.get()))
    await context.abort(status.code, status.details, trailers)


def _expired(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0


def _forgiving(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return Unreadable()

    return deserialize


def _readable(message: Any) -> Any:
    if isinstance(message, Unreadable):
        raise InvalidRequest([Violation("", "the bytes of the request are not the message of this method")])
    return message


async def _all_readable(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in messages:
        yield _readable(message)
