"""The edge, which every RPC passes: request id, identity, admission, metrics, span, and the one handler of errors.

Servicers return messages or raise PapaErrors; whatever else they raise is logged and answered with INTERNAL, which
tells the caller nothing but the request id.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from papa_serving import tracing
from papa_serving.contracts.errors import InvalidRequest, PapaError, Status, Violation
from papa_serving.gateway.auth.identity import ANYBODY, Authenticate
from papa_serving.gateway.auth.tls import open_revocations
from papa_serving.gateway.rpc.admission import (
    Arrivals,
    Caller,
    Connections,
    HeldBytes,
    Meter,
    Places,
    Readings,
    caller,
    check_scope,
)
from papa_serving.gateway.rpc.status import rich_status
from papa_serving.logs import request_id
from papa_serving.metrics import RPC_HANDLED, RPC_IN_FLIGHT, RPC_SECONDS
from papa_serving.settings import GatewaySettings

log = logging.getLogger(__name__)

PACKAGE = "papa.serving.v1"
PREFIX = f"/{PACKAGE}."
REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Codes that count as failures of the server; with all others the caller is at fault."""

TRANSPORT_FACTOR = 2
"""The transport takes messages so many times larger than the edge: beyond that, grpc ends a call without a word."""
ARRIVALS = 1_024
"""Calls that wait for their first message."""
READINGS = 16
"""First messages that are read at once at least, however large one may be."""
OPEN_STREAMS, OPEN_STREAMS_PER_CONNECTION = 128, 8
"""Streams of the health service and of reflection, which need no credential."""

EOF: Any = vars(grpc.aio)["EOF"]
"""The result of `read` at the end of a stream; grpc's type stubs lack it."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Unparsed:
    """The bytes of a message before they are parsed, so that they are counted first."""

    data: bytes
    parse: Callable[[bytes], Any]

    def take(self) -> Any:
        """The message. Can be called once, because the bytes are not kept. Raises DecodeError."""
        data, self.data = self.data, b""
        return self.parse(data)


class Oversize:
    """Stands for a message that is larger than the gateway takes."""

    def __init__(self, size: int, limit: int) -> None:
        self.advice = f"the message has {size} bytes, and {limit} are the most; send less at once"


class CallerGone(Exception):
    """The caller went away while an answer was being sent."""


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handlers of all services.

    Every handler becomes a streaming one, which looks the same on the wire. grpc.aio calls a unary handler only once
    its message is there: a call without a message would be out of reach of every limit.
    """

    def __init__(self, authenticate: Authenticate, settings: GatewaySettings) -> None:
        """Raises ValueError for revocation lists that cannot be used."""
        self._authenticate, self._max_message_bytes = authenticate, settings.max_message_bytes
        self._connections = Connections(settings.max_connection_rpcs)
        self._arrivals = Arrivals(ARRIVALS, settings.first_message_seconds)
        largest = TRANSPORT_FACTOR * settings.max_message_bytes
        # So many of the largest messages arrive together as may be held once they are there.
        self._readings = Readings(max(READINGS, settings.max_held_bytes // largest))
        self._places = Places(settings.max_concurrent_rpcs, tenant_limit=settings.rates.tenant_calls)
        self._held_bytes = HeldBytes(max(settings.max_held_bytes, largest))
        self._meter = Meter(settings.rates)
        self._open_arrivals = Arrivals(OPEN_STREAMS, settings.first_message_seconds)
        self._open_streams = Places(OPEN_STREAMS, group_limit=OPEN_STREAMS_PER_CONNECTION)
        self._revocations = open_revocations(settings.tls)
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
        if handler is None:
            return handler
        return self._handlers.setdefault(path, self._wrapped(path, handler))

    def _message_limit(self, handler: Any) -> int:
        """One event of a stream may reach the limit of the transport, so that it is refused alone and in words: each of
        its fields has a limit of its own."""
        limit = self._max_message_bytes
        return TRANSPORT_FACTOR * limit if handler.request_streaming else limit

    def _wrapped(self, path: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        async def serve(_: object, context: Context) -> None:
            async with self._rpc(path.removeprefix(PREFIX), context) as (first, release):
                await _respond(handler, first, release, context)

        async def serve_open(_: object, context: Context) -> None:
            async with self._open_rpc(handler.response_streaming, context) as first:
                await _respond(handler, first, _nothing, context)

        return grpc.stream_stream_rpc_method_handler(
            serve if path.startswith(PREFIX) else serve_open,
            request_deserializer=_unparsed(handler.request_deserializer, self._message_limit(handler)),
            response_serializer=handler.response_serializer,
        )

    @asynccontextmanager
    async def _rpc(self, method: str, context: Context) -> AsyncIterator[tuple[Any, Callable[[], None]]]:
        """One RPC from its start to its end; gives its first message, EOF without one, and what to call when that
        message was consumed, at the latest at the end.

        The values of its context variables end with the RPC's task.
        """
        started = time.monotonic()
        metadata = _begin(context)
        connection = ("connection", context.peer())
        RPC_IN_FLIGHT.labels(method).inc()
        code, first = "OK", EOF
        with _span(method, metadata) as span:
            try:
                self._check_peer(context)
                with self._connections.call(connection):
                    async with self._arrivals.arrival(connection) as arrival:
                        identity = await self._authenticate(metadata)
                        check_scope(identity, method)
                        arrival.assign(identity)
                        async with self._readings.turn(arrival):
                            first = await context.read()
                    with (
                        self._held_bytes.held(connection, identity, _size(first)) as release,
                        self._places.place(connection, identity) as place,
                    ):
                        caller.set(Caller(identity, self._meter, place))
                        yield first, release
            except (asyncio.CancelledError, GeneratorExit):
                code = ending(context)
                raise
            except CallerGone:
                code = "CANCELLED"
            except Exception as error:
                code, public = logged(method, error).status.name, _public(error)
                _free(error, first)
                await _abort(context, public)
            finally:
                RPC_IN_FLIGHT.labels(method).dec()
                count(method, code, started)
                _settle(span, code)

    @asynccontextmanager
    async def _open_rpc(self, streaming: bool, context: Context) -> AsyncIterator[Any]:
        """A call of the health service or of reflection, which need no credential and no place among the others.

        Streams have a small limit of their own; a health check always passes.
        """
        connection = ("connection", context.peer())
        try:
            self._check_peer(context)
            async with self._open_arrivals.arrival(connection):
                first = await context.read()
            with self._open_streams.place(connection, ANYBODY) if streaming else nullcontext():
                yield first
        except CallerGone:
            return
        except PapaError as error:
            await _abort(context, error)

    def _check_peer(self, context: Context) -> None:
        """Raises Unauthenticated for a certificate that was revoked."""
        if self._revocations is not None:
            self._revocations.check(context.auth_context())


def _nothing() -> None:
    """Stands for the release of bytes that are not counted."""


async def _respond(handler: Any, first: Any, release: Callable[[], None], context: Context) -> None:
    """Calls the handler of whichever kind, and sends its answers."""
    request = _messages(first, release, context) if handler.request_streaming else _readable(first)
    if not handler.response_streaming:
        await _send(context, await handler.unary_unary(request, context))
        return
    behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
    if not inspect.isasyncgenfunction(behaviour):
        await behaviour(request, context)
        return
    async with aclosing(behaviour(request, context)) as responses:
        async for response in responses:
            await _send(context, response)


def _size(message: Any) -> int:
    return len(message.data) if isinstance(message, Unparsed) else 0


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
    """The error that the caller gets for `error`."""
    if isinstance(error, PapaError) and error.status is not Status.INTERNAL:
        return error
    return PapaError("internal error; the request id finds it in the logs")


def logged(method: str, error: Exception) -> PapaError:
    """The error that the caller gets for `error`, of which the log tells the rest."""
    public = _public(error)
    if public is not error:
        log.error("%s failed", method, exc_info=error)
    elif public.status in (Status.UNAVAILABLE, Status.DATA_LOSS):
        # Of damage the caller is told as little as of an internal error, so the log must tell the rest.
        trace = error if public.status is Status.DATA_LOSS else None
        log.warning("%s: %s", method, public.message, exc_info=trace, extra={"reason": public.reason})
    else:
        log.debug("%s: %s", method, public.message, extra={"reason": public.reason})
    return public


def _free(error: BaseException, first: Any) -> None:
    """Frees the request of a call that fails.

    The error of `abort` refers to itself by way of grpc's state and these frames, so that what they name would last
    until Python next looks for cycles: gigabytes of refused requests.
    """
    if isinstance(first, Unparsed):
        first.data = b""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


async def _abort(context: Context, error: PapaError) -> None:
    status = rpc_status.to_status(rich_status(error, request_id.get()))
    trailers = (*status.trailing_metadata, (REQUEST_ID_KEY, request_id.get()))
    await context.abort(status.code, status.details, trailers)


def ending(context: Context) -> str:
    """The code of a call that was cancelled: by its deadline, or by its caller."""
    remaining = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"


def count(method: str, code: str, started: float) -> None:
    """Counts a call, or a part of one, that ended now with the gRPC status `code`; `started` is a monotonic time."""
    RPC_HANDLED.labels(method, code).inc()
    RPC_SECONDS.labels(method).observe(time.monotonic() - started)


def _unparsed(parse: Callable[[bytes], Any], limit: int) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        return Oversize(len(data), limit) if len(data) > limit else Unparsed(data, parse)

    return deserialize


def _readable(message: Any) -> Any:
    if message is EOF:
        raise InvalidRequest([Violation("", "the call ended without a message")])
    if isinstance(message, Oversize):
        raise InvalidRequest([Violation("", message.advice)])
    try:
        return message.take()
    except DecodeError:
        what = "the bytes of the request are not the message of this method"
        raise InvalidRequest([Violation("", what)]) from None


async def _messages(first: Any, release: Callable[[], None], context: Context) -> AsyncIterator[Any]:
    """All messages of a stream, of which the first has been read. `release` is called once that one was consumed: a
    stream may last for days, and its later messages are bounded by its reader."""
    message = first
    while message is not EOF:
        yield _readable(message)
        release()
        message = await context.read()
