"""The gateway's client of EngineService, and its connections, which follow what the generator's address names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc

from papa_serving import tracing
from papa_serving.contracts.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    InvalidRequest,
    PapaError,
    QueueFull,
    Unauthenticated,
    Violation,
    error_from_reason,
)
from papa_serving.contracts.generation import GenerationSpec, ImageEncoding
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.limits import MAX_ENGINE_MESSAGE_BYTES
from papa_serving.logs import request_id
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc

log = logging.getLogger(__name__)

# The name of the Serve application; its proxy routes by this metadata, another server ignores it.
APPLICATION = "generator"
# Serve's list of its applications, as bytes, so that no message class of Ray's is needed.
LIST_APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
# How Serve's list of its applications names it: field 1 holds a name each.
LISTED = b"\n" + bytes([len(APPLICATION)]) + APPLICATION.encode()
LIST_SECONDS = 2.0
CONNECT_SECONDS = 2.0
RETRY_AFTER = 1.0
RETRY_PAUSE = 0.1
PACK_SECONDS = 30.0
RENDER_SECONDS = 30.0
EMBED_SECONDS = 60.0
JUDGE_SECONDS = 30.0
REST_SECONDS, REST_PAUSE = 0.5, 0.05
"""How long the rest of a run that its caller has left is read at most, and how long one event of it may take.

An event that takes longer was not on its way, and reading on would let the engine draw more.
"""
RESTS, TENANT_SHARE = 64, 0.25
"""The runs of which the rest is read at the same time, and the part of them that one tenant may have."""
SHORTEST = 1e-6

RUN = "papa.engine.v1.EngineService/Run"
_RPC = {"rpc.system": "grpc", "rpc.service": "papa.engine.v1.EngineService", "rpc.method": "Run"}

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_ENGINE_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_ENGINE_MESSAGE_BYTES),
    # A restarted generator is found within a second or two; the library's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A window that does not grow with what the network could carry: what a caller does not read waits in the engine,
    # whatever the machine.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * 2**20),
    ("grpc.enable_http_proxy", 0),
    # Otherwise a new channel to the same IP address takes over the old one's TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)

Event = engine_pb2.ItemsDone | engine_pb2.RunDone
RunCall = grpc.aio.UnaryStreamCall[engine_pb2.RunRequest, engine_pb2.RunResponse]


class EngineClient:
    """Runs generations on whichever generator replica answers."""

    def __init__(self, address: str, token: Callable[[], str] = str, max_age: float = 60.0) -> None:
        """Makes a client that does not connect yet.

        `token` gives what the engine's port asks for at present, "" for one that asks for none. A connection is renewed
        after `max_age` seconds.
        """
        self._token = token
        self._channel = EngineChannel(address, max_age)
        self._rests: dict[asyncio.Task[None], str] = {}

    def _credentials(self) -> tuple[tuple[str, str], ...]:
        token = self._token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    async def close(self) -> None:
        """Ends running calls."""
        for rest in tuple(self._rests):
            rest.cancel()
        await asyncio.gather(*self._rests, return_exceptions=True)
        await self._channel.close()

    async def readiness(self, seconds: float) -> AsyncGenerator[bool, None]:
        """Yields whether a generator takes new generations, every `seconds` and when the connection changes."""
        while True:
            channel = self._channel.current().channel
            state = channel.get_state(try_to_connect=True)
            changed = asyncio.ensure_future(channel.wait_for_state_change(state))
            try:
                yield state is grpc.ChannelConnectivity.READY and await self._deployed()
                await asyncio.wait([changed], timeout=seconds)
            finally:
                changed.cancel()
                # A channel that was closed meanwhile is an error to wait for, and no news.
                await asyncio.gather(changed, return_exceptions=True)

    async def _deployed(self) -> bool:
        """Whether the server lists the generator.

        Ray Serve removes an application from its list before the running calls finish. A server without such a list
        is itself the generator.
        """
        connection = self._channel.current()
        try:
            with connection.call():
                return LISTED in await connection.list_applications(b"", timeout=LIST_SECONDS)
        except grpc.aio.AioRpcError as failure:
            return failure.code() is not grpc.StatusCode.UNAVAILABLE

    async def run(self, spec: GenerationSpec, told: Callable[[Event], None]) -> AsyncGenerator[Event, None]:
        """Yields ItemsDone as items finish, then one RunDone. Closing the iterator cancels the run.

        `told` gets each event before it is yielded. It also gets the events that are on their way when the iterator is
        closed, because they tell what was drawn for a caller who did not read and has hung up.

        An ItemsDone without items tells how much is drawn by now. A refused or lost connection is tried once more, on a
        new one, while no item has arrived. Raises what the engine reports, GeneratorUnavailable when no generator
        answers, DeadlineExceeded.
        """
        arrived, connection = False, self._channel.current()
        try:
            async with aclosing(self._attempt(spec, connection, told)) as events:
                async for event in events:
                    arrived = arrived or isinstance(event, engine_pb2.RunDone) or bool(event.items)
                    yield event
            return
        except grpc.aio.AioRpcError as failure:
            if arrived or failure.code() is not grpc.StatusCode.UNAVAILABLE:
                raise _translated(failure) from failure
            log.info("trying the generator again: %s", failure.details())
        await self._renew(connection)
        try:
            async with aclosing(self._attempt(spec, self._channel.current(), told)) as events:
                async for event in events:
                    yield event
        except grpc.aio.AioRpcError as failure:
            raise _translated(failure) from failure

    async def pack_adapter(self, request: engine_pb2.PackAdapterRequest) -> engine_pb2.PackedAdapter:
        """Makes a revision's files of an imported adapter. Raises InvalidRequest, GeneratorUnavailable."""
        response: engine_pb2.PackAdapterResponse = await self._ask("PackAdapter", request, PACK_SECONDS)
        if response.WhichOneof("result") != "packed":
            raise _reported(response.error)
        return response.packed

    async def render_item(self, request: engine_pb2.RenderItemRequest) -> engine_pb2.RenderedItem:
        """Encodes a stored item again. Raises ItemNotFound, GeneratorUnavailable."""
        response: engine_pb2.RenderItemResponse = await self._ask("RenderItem", request, RENDER_SECONDS)
        if response.WhichOneof("result") != "rendered":
            raise _reported(response.error)
        return response.rendered

    async def embed(self, tenant: str, samples: Sequence[bytes]) -> engine_pb2.Embedded:
        """Embeds packed pictures, at most MAX_EMBEDDED; without any it only names the encoder.

        Raises what the engine reports, GeneratorUnavailable, DeadlineExceeded.
        """
        request = engine_pb2.EmbedRequest(request_id=request_id.get(), tenant=tenant, samples=samples)
        response: engine_pb2.EmbedResponse = await self._ask("Embed", request, EMBED_SECONDS)
        if response.WhichOneof("result") != "embedded":
            raise _reported(response.error)
        return response.embedded

    async def judge(
        self, user: UserKey, encoder: str, embeddings: Sequence[bytes] = (), kinds: bool = False
    ) -> engine_pb2.Judgement:
        """How likely a user likes pictures embedded by `encoder`, at most MAX_JUDGED, and the kinds of the user's
        taste. There are as many probabilities as embeddings, or none.

        Raises EncoderChanged, what else the engine reports, GeneratorUnavailable, DeadlineExceeded.
        """
        request = engine_pb2.JudgeRequest(
            request_id=request_id.get(), tenant=user.tenant, user=user.user, embeddings=embeddings, kinds=kinds,
            encoder=encoder,
        )  # fmt: skip
        response: engine_pb2.JudgeResponse = await self._ask("Judge", request, JUDGE_SECONDS)
        if response.WhichOneof("result") != "judgement":
            raise _reported(response.error)
        judgement = response.judgement
        if len(judgement.probabilities) not in (0, len(embeddings)):
            log.error("the engine judged %d of %d pictures", len(judgement.probabilities), len(embeddings))
            raise GeneratorUnavailable("no generator answers at the moment", retry_after=RETRY_AFTER)
        return judgement

    async def _ask(self, method: str, request: Any, seconds: float) -> Any:
        """One unary call, tried once more on a new connection where the first was refused or lost."""
        connection = self._channel.current()
        try:
            return await self._asked(method, request, seconds, connection)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.UNAVAILABLE:
                raise _translated(failure) from failure
        await self._renew(connection)
        try:
            return await self._asked(method, request, seconds, self._channel.current())
        except grpc.aio.AioRpcError as second:
            raise _translated(second) from second

    async def _asked(self, method: str, request: Any, seconds: float, connection: Connection) -> Any:
        metadata = (("application", APPLICATION), ("request_id", request.request_id), *self._credentials())
        with connection.call():
            return await getattr(connection.stub, method)(request, timeout=seconds, metadata=metadata)

    async def _renew(self, failed: Connection) -> None:
        await asyncio.sleep(RETRY_PAUSE)
        await self._channel.renew(failed)

    async def _attempt(
        self, spec: GenerationSpec, connection: Connection, told: Callable[[Event], None]
    ) -> AsyncGenerator[Event, None]:
        timeout = _seconds_left(spec)
        with connection.call(), tracing.span(RUN, "client", attributes=_RPC) as span:
            route = (("application", APPLICATION), ("request_id", spec.request_id))
            metadata = (*route, *self._credentials(), *_context(span))
            request = _request(replace(spec, traceparent=span.traceparent))
            call = connection.stub.Run(request, timeout=timeout, metadata=metadata)
            left = False
            try:
                # Not `async for`, whose generator and call hold each other, and the channel with them: its connection
                # would stand until the interpreter next looks for cycles, long after the channel was closed.
                while isinstance(response := await call.read(), engine_pb2.RunResponse):
                    match response.WhichOneof("event"):
                        case "items":
                            told(response.items)
                            left = True
                            yield response.items
                            left = False
                        case "done":
                            told(response.done)
                            yield response.done
                            return
                        case "error":
                            raise _reported(response.error)
            finally:
                if not (left and self._read_rest(spec.user.tenant, call, connection, told)):
                    call.cancel()
            raise GeneratorUnavailable("the generator ended before the generation was done", retry_after=RETRY_AFTER)

    def _read_rest(self, tenant: str, call: RunCall, connection: Connection, told: Callable[[Event], None]) -> bool:
        """Begins to read the rest of a run; False where too many are being read, in all or for the tenant."""
        of_tenant = sum(owner == tenant for owner in self._rests.values())
        if len(self._rests) >= RESTS or of_tenant >= RESTS * TENANT_SHARE:
            return False
        held = ExitStack()
        held.enter_context(connection.call())
        rest = asyncio.create_task(_rest(call, held, told))
        self._rests[rest] = tenant
        rest.add_done_callback(self._rests.pop)
        return True


async def _rest(call: RunCall, held: ExitStack, told: Callable[[Event], None]) -> None:
    """Tells of the events that are on their way, and cancels the call once they have arrived.

    The call cannot be cancelled first, because grpc.aio drops what a cancelled call has received.
    """
    with held, suppress(grpc.aio.AioRpcError, TimeoutError):
        try:
            async with asyncio.timeout(REST_SECONDS):
                while isinstance(response := await _soon(call), engine_pb2.RunResponse):
                    match response.WhichOneof("event"):
                        case "items":
                            told(response.items)
                        case "done":
                            told(response.done)
        finally:
            call.cancel()


async def _soon(call: RunCall) -> object:
    """The next event; None if it is not there soon.

    Not `asyncio.timeout`, which drops an event that arrived while the loop was busy for longer.
    """
    reading = asyncio.ensure_future(call.read())
    try:
        arrived, _ = await asyncio.wait([reading], timeout=REST_PAUSE)
        return reading.result() if arrived else None
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _context(span: tracing.Span) -> tuple[tuple[str, str], ...]:
    """Trace context for a proxy between this process and the engine."""
    return (("traceparent", span.traceparent),) if span.traceparent else ()


def _seconds_left(spec: GenerationSpec) -> float | None:
    """Seconds until the deadline, never 0, which would mean no deadline."""
    return max(SHORTEST, spec.deadline - time.monotonic()) if spec.deadline else None


def _request(spec: GenerationSpec) -> engine_pb2.RunRequest:
    return engine_pb2.RunRequest(
        request_id=spec.request_id,
        generation_id=spec.generation_id,
        tenant=spec.user.tenant,
        user=spec.user.user,
        count=spec.count,
        prompt=spec.prompt,
        seed=spec.seed,
        sampler=spec.sampler,
        steps=spec.steps,
        revision=spec.revision,
        exploration=spec.exploration,
        seconds_left=_seconds_left(spec) or 0.0,
        traceparent=spec.traceparent,
        guidance=spec.guidance,
        negative_prompt=spec.negative_prompt,
        min_like_probability=spec.min_like_probability,
        overdraw=spec.overdraw,
        image=encoding_to_wire(spec.image),
        notes=spec.notes.encode(),
    )


def encoding_to_wire(image: ImageEncoding) -> engine_pb2.ImageEncoding:
    """How images are encoded, in the engine's contract."""
    return engine_pb2.ImageEncoding(format=image.format, max_edge=image.max_edge, quality=image.quality)


def _reported(error: engine_pb2.RunError) -> PapaError:
    """The exception that the engine raised on its side."""
    if error.reason == Unauthenticated.reason:
        # Not the caller's fault, whose own credential was checked before.
        log.error("the engine refuses this gateway: generator.token here is not what it asks for")
        return GeneratorUnavailable("no generator answers at the moment", retry_after=RETRY_AFTER)
    if error.reason == InvalidRequest.reason:
        return InvalidRequest([Violation(error.metadata.get("field", ""), error.message)])
    return error_from_reason(error.reason, error.message, error.retry_after_seconds or None, error.metadata)


def _translated(failure: grpc.aio.AioRpcError) -> PapaError:
    """Translates a failure of the connection, of Serve's proxy or of a replica that died.

    Serve answers NOT_FOUND or UNIMPLEMENTED for an application that is not up yet and INTERNAL for a lost replica.
    """
    match failure.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the deadline passed before all items were done")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return QueueFull("the generator takes no more work at the moment", retry_after=RETRY_AFTER)
        case code:
            log.warning("the generator failed: %s: %s", code.name, failure.details())
            return GeneratorUnavailable("no generator answers at the moment", retry_after=RETRY_AFTER)


class Connection:
    """One channel, its stubs, and the number of calls that run on it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self.stub = engine_pb2_grpc.EngineServiceStub(self.channel)
        self.list_applications = self.channel.unary_unary(LIST_APPLICATIONS, None, None)
        self.opened = time.monotonic()
        self._calls, self._unused = 0, asyncio.Event()
        self._unused.set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Keeps the channel open meanwhile."""
        self._calls += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._unused.set()

    async def connect(self) -> bool:
        """Whether the server behind the address takes a connection."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def finish(self) -> None:
        """Closes the channel when its last call has ended."""
        try:
            await self._unused.wait()
        finally:
            await self.channel.close(None)


class EngineChannel:
    """The connection for new calls.

    A connection stays with the server that it once reached, also when the address names another one by now. So after
    `max_age` seconds, and when a call finds nobody, a new one resolves the name anew. It takes over once it is
    connected, and the old one serves its calls to their ends.
    """

    def __init__(self, address: str, max_age: float) -> None:
        """`max_age` in seconds."""
        self._address, self._max_age = address, max_age
        self._current = Connection(address)
        self._renewal: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    def current(self) -> Connection:
        """The connection for a new call. Begins the renewal of one that is too old."""
        if time.monotonic() - self._current.opened >= self._max_age:
            self._renewing()
        return self._current

    async def renew(self, failed: Connection) -> None:
        """Replaces a connection on which a call found nobody, unless that has happened already or nobody answers."""
        if failed is self._current:
            await asyncio.shield(self._renewing())

    async def close(self) -> None:
        """Ends running calls."""
        tasks = [*self._finishing, *([] if self._renewal is None else [self._renewal])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._current.channel.close(None)

    def _renewing(self) -> asyncio.Task[None]:
        """The renewal that runs; one serves all who ask for it."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> None:
        new, connected = Connection(self._address), False
        try:
            connected = await new.connect()
        finally:
            if not connected:
                await new.channel.close(None)
        if not connected:
            log.info("no generator answers at %s: the connection is not renewed", self._address)
            return
        old, self._current = self._current, new
        task = asyncio.create_task(old.finish())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
