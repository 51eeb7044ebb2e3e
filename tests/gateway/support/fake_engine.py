"""An EngineService over a real socket that does what a test tells it, run by run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import grpc
import numpy as np
from papa_serving.contracts.samples import unpack_sample
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc

NOISE_VERSION = 7
EMBEDDING_SIZE = 4

Step = Callable[[engine_pb2.RunRequest, grpc.aio.ServicerContext], Awaitable[engine_pb2.RunResponse | None]]


def items(
    first: int,
    last: int | None = None,
    *,
    revision: str = "000001-aa",
    adapter: bool = True,
    size: int = 16,
    like: float | None = None,
    exploring: bool = False,
    drawn: int = 0,
) -> Step:
    """Items `first` to `last`, both included, in one message; `drawn` candidates so far."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse:
        done = engine_pb2.ItemsDone(revision=revision, drawn=drawn)
        for index in range(first, (first if last is None else last) + 1):
            done.items.add(
                item_id=f"{request.generation_id}-{index}",
                image=bytes([index % 256]) * size,
                content_type="image/png",
                seed=request.seed + index,
                index=index,
                adapter=adapter,
                like_probability=like,
                exploring=exploring,
            )
        return engine_pb2.RunResponse(items=done)

    return step


def done(revision: str = "000001-aa", drawn: int = 0, accepted: int = 0) -> Step:
    """The regular end; without draws that of a former release."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse:
        timings = {"queued_seconds": 0.25, "denoising_seconds": 0.5, "adapter_load_seconds": 0.125}
        return engine_pb2.RunResponse(
            done=engine_pb2.RunDone(
                revision=revision, noise_version=NOISE_VERSION, drawn=drawn, accepted=accepted, **timings
            )
        )

    return step


def error(reason: str, message: str = "as told", retry_after: float = 0.0, **metadata: str) -> Step:
    """An error of the engine itself."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse:
        report = engine_pb2.RunError(reason=reason, message=message, retry_after_seconds=retry_after, metadata=metadata)
        return engine_pb2.RunResponse(error=report)

    return step


def by_user(steps: Mapping[str, Step]) -> Step:
    """The step for the user of the request; all items for one who is not named."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse | None:
        chosen = steps.get(request.user) or items(0, request.count - 1)
        return await chosen(request, context)

    return step


def fail(code: grpc.StatusCode) -> Step:
    """A failure below the engine."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code, "Traceback (most recent call last): secret")

    return step


def wait(event: asyncio.Event) -> Step:
    """Goes on once `event` is set."""

    async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> None:
        await event.wait()

    return step


class FakeEngine(engine_pb2_grpc.EngineServiceServicer):
    """Runs one script per Run, the last one again and again; without scripts it makes all items at once."""

    def __init__(self) -> None:
        self.scripts: list[list[Step]] = []
        self.requests: list[engine_pb2.RunRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.timeouts: list[float | None] = []
        self.packed: list[engine_pb2.PackAdapterRequest] = []
        self.packing: Callable[[engine_pb2.PackAdapterRequest], engine_pb2.PackAdapterResponse] | None = None
        self.rendered: list[engine_pb2.RenderItemRequest] = []
        self.rendering: list[grpc.StatusCode] = []
        self.rendered_size = 16
        self.encoder = "the-encoder"
        self.embedded: list[engine_pb2.EmbedRequest] = []
        self.refusals: list[engine_pb2.RunError] = []
        self.judged: list[engine_pb2.JudgeRequest] = []
        self.tastes: dict[str, engine_pb2.Judgement] = {}
        self.backbone: list[engine_pb2.Kind] = []
        self.forgotten: dict[str, engine_pb2.RunError] = {}
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cancellations = 0
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        engine_pb2_grpc.add_EngineServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()

    async def die(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def Run(
        self, request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[engine_pb2.RunResponse]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.timeouts.append(context.time_remaining())
        script = self._next_script(request)
        self.running.set()
        try:
            for step in script:
                response = await step(request, context)
                if response is not None:
                    yield response
        except asyncio.CancelledError:
            self.cancelled.set()
            self.cancellations += 1
            raise

    async def PackAdapter(
        self, request: engine_pb2.PackAdapterRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.PackAdapterResponse:
        """Takes whatever comes, unless `packing` says otherwise."""
        self.packed.append(request)
        if self.packing is not None:
            return await asyncio.to_thread(self.packing, request)
        made = {"sha256": hashlib.sha256(b"{}").hexdigest(), "files": {**request.files, "manifest.json": b"{}"}}
        return engine_pb2.PackAdapterResponse(packed=engine_pb2.PackedAdapter(**made))

    async def RenderItem(
        self, request: engine_pb2.RenderItemRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.RenderItemResponse:
        """Has the items 0 to 9 of generation "g", for everybody."""
        self.rendered.append(request)
        if self.rendering:
            await context.abort(self.rendering.pop(), "lost")
        generation, _, index = request.item_id.rpartition("-")
        if generation != "g" or len(index) != 1:
            return engine_pb2.RenderItemResponse(error=engine_pb2.RunError(reason="ITEM_NOT_FOUND", message="no item"))
        item = engine_pb2.EngineItem(
            item_id=request.item_id,
            image=bytes([int(index)]) * self.rendered_size,
            content_type=f"image/{request.image.format}",
            seed=7,
            index=int(index),
            adapter=True,
        )
        made = engine_pb2.RenderedItem(item=item, generation_id="g", revision="000001-aa", prompt="a boot")
        return engine_pb2.RenderItemResponse(rendered=made)

    async def Embed(
        self, request: engine_pb2.EmbedRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.EmbedResponse:
        """The mean of each quarter of a picture, plus 1. Each of `refusals` comes once, instead of pictures."""
        self.embedded.append(request)
        if request.samples and self.refusals:
            return engine_pb2.EmbedResponse(error=self.refusals.pop())
        answer = engine_pb2.Embedded(encoder=self.encoder, size=EMBEDDING_SIZE)
        for sample in request.samples:
            quarters = np.split(unpack_sample(sample).astype(np.float32).ravel(), EMBEDDING_SIZE)
            answer.embeddings.append(np.array([each.mean() + 1 for each in quarters], "<f2").tobytes())
        return engine_pb2.EmbedResponse(embedded=answer)

    async def Judge(
        self, request: engine_pb2.JudgeRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.JudgeResponse:
        return await self.judge(request)

    async def judge(self, request: engine_pb2.JudgeRequest) -> engine_pb2.JudgeResponse:
        """Nobody is known but those in `tastes`, who like an item by the first number of its embedding ÷ 1,000. Kinds
        of the backbone are `backbone`, if any. `forgotten` users get their error."""
        self.judged.append(request)
        if request.encoder != self.encoder:
            return engine_pb2.JudgeResponse(error=engine_pb2.RunError(reason="ENCODER_CHANGED", message="another"))
        if request.user in self.forgotten:
            return engine_pb2.JudgeResponse(error=self.forgotten[request.user])
        known = self.tastes.get(request.user)
        answer = engine_pb2.Judgement()
        if known is not None:
            answer.CopyFrom(known)
        if not request.kinds:
            del answer.kinds[:]
        elif not answer.kinds:
            answer.kinds.extend(self.backbone)
        if answer.labels:
            firsts = [float(np.frombuffer(each, "<f2")[0]) for each in request.embeddings]
            answer.probabilities.extend(float(first) / 1_000 for first in firsts)
        return engine_pb2.JudgeResponse(judgement=answer)

    def _next_script(self, request: engine_pb2.RunRequest) -> list[Step]:
        if not self.scripts:
            return [items(0, request.count - 1), done()]
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
