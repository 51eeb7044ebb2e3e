"""What every RPC passes through: request id, identity, limit, metrics, and the one handler of errors.

Servicers return messages or raise PapaErrors; whatever else they raise is logged and answered with INTERNAL, which
tells the caller nothing but the request id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from papa_serving.contracts.errors import InvalidRequest, Overloaded, PapaError, Status, Violation
from papa_serving.gateway import spans
from papa_serving.gateway.access import check_scope
from papa_serving.gateway.identity import Authenticate, Identity, caller
from papa_serving.gateway.places import Place, Places
from papa_serving.gateway.rates import Meter
from papa_serving.gateway.status import rich_status
from papa_serving.logs import request_id
from papa_serving.metrics import RPC_HANDLED, RPC_IN_FLIGHT, RPC_SECONDS
from papa_serving.settings import RateSettings

log = logging.getLogger(__name__)

PACKAGE = "/papa.serving.v1."
REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

Context = grpc.aio.ServicerContext[Any, Any]


class Unreadable:
    """Stands for a message whose bytes are not protobuf, so that it is refused like any other bad request."""


class CallerGone(Exception):
    """Nobody is there any more to take an answer."""


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handlers of this product's services; health and reflection pass untouched."""

    def __init__(self, authenticate: Authenticate, max_concurrent_rpcs: int, rates: RateSettings) -> None:
        self._authenticate = authenticate
        self._places, self._tenant_limit = Places(max_concurrent_rpcs), rates.tenant_calls
        self._meter = Meter(rates)
        self._of_tenant: Counter[str] = Counter()
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The wrapped handler of a method; None (UNIMPLEMENTED) for one that does not exist."""
        path = handler_call_details.method
        if path in self._handlers:
            return self._handlers[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith(PACKAGE):
            return handler
        return self._handlers.setdefault(path, self._wrapped(path.removeprefix(PACKAGE), handler))

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
        place = Place(self._places)
        self._places.in_flight += 1
        RPC_IN_FLIGHT.labels(method).inc()
        code = "OK"
        with spans.of_rpc(method, metadata) as span:
            try:
                if self._places.in_flight > self._places.limit:
                    raise Overloaded(f"the gateway handles {self._places.limit} calls at once and no more")
                identity = await self._authenticate(metadata)
                check_scope(identity, method)
                caller.set(replace(identity, meter=self._meter, place=place))
                with self._place(identity):
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
                self._places.in_flight -= 1
                place.leave()
                RPC_IN_FLIGHT.labels(method).dec()
                RPC_HANDLED.labels(method, code).inc()
                RPC_SECONDS.labels(method).observe(time.monotonic() - started)
                spans.settle(span, code)

    @contextmanager
    def _place(self, identity: Identity) -> Iterator[None]:
        """Among the calls of the tenant. Raises Overloaded."""
        tenant = identity.tenant
        if self._tenant_limit and self._of_tenant[tenant] >= self._tenant_limit:
            raise Overloaded(f"this tenant has {self._tenant_limit} calls under way and may have no more")
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]


async def _send(context: Context, response: Any) -> None:
    """grpc says "execute_batch failed" where the caller went away a moment ago; raises CallerGone."""
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
