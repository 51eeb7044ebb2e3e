"""GenerationService: validates a request, assigns id and seed, and proxies it to the engine."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from google.protobuf.message import Message

from papa_serving import tracing
from papa_serving.contracts.attribution import Impression, Notes, ShownItem
from papa_serving.contracts.errors import InvalidRequest, Status, Violation
from papa_serving.contracts.generation import GenerationSpec, ImageEncoding
from papa_serving.contracts.limits import MAX_RANDOM_SEED
from papa_serving.contracts.vocabulary import Reading, Vocabulary
from papa_serving.gateway.backends import KnownBackbone
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.engine_client import EngineClient, Event, encoding_to_wire
from papa_serving.gateway.experiments import Trials
from papa_serving.gateway.impressions import Impressions
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.edge import Context, count, ending, logged
from papa_serving.gateway.rpc.status import public_message, retry_after
from papa_serving.logs import request_id
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import generation_pb2, generation_pb2_grpc

_SAMPLERS: dict[int, str] = {
    generation_pb2.SAMPLER_UNSPECIFIED: "",
    generation_pb2.SAMPLER_DDPM: "ddpm",
    generation_pb2.SAMPLER_DDIM: "ddim",
    generation_pb2.SAMPLER_DPMPP_2M: "dpmpp_2m",
}

_FORMATS: dict[int, str] = {
    generation_pb2.IMAGE_FORMAT_UNSPECIFIED: ImageEncoding.format,
    generation_pb2.IMAGE_FORMAT_PNG: "png",
    generation_pb2.IMAGE_FORMAT_WEBP: "webp",
    generation_pb2.IMAGE_FORMAT_JPEG: "jpeg",
}

MANY_AT_ONCE = 8
"""Generations of one GenerateMany that run at the same time: enough to fill a batch, and no flood of the queue.

Results that are not sent yet count as well: a caller who stops reading holds no more than these.
"""

ONE_OF_MANY = "GenerationService/GenerateMany/Generate"
"""The method under which metrics count each generation of a GenerateMany; the rules' `.*Generate` matches it."""

_FEWER = ("count", "ask for fewer, or use StreamGenerate")
_SMALLER = ("image", "ask for a smaller max_edge, or a lossy format")

_PROMPTING = ("prompt", "guidance_scale", "negative_prompt")
"""The fields that mean something only for a backbone that takes a prompt."""


@dataclass(frozen=True)
class _Asked:
    """A validated request: what the engine is to do, how the prompt was read, and the user's arms."""

    spec: GenerationSpec
    reading: Reading
    arms: Mapping[str, str]


class GenerationService(generation_pb2_grpc.GenerationServiceServicer):
    """Translates between the public contract and the engine's."""

    def __init__(
        self,
        limits: GatewaySettings,
        engine: EngineClient,
        backbone: KnownBackbone,
        impressions: Impressions,
        trials: Trials,
    ) -> None:
        self._limits, self._engine, self._backbone = limits, engine, backbone
        self._impressions, self._trials = impressions, trials

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> generation_pb2.GenerateResponse:
        response, asked = await self._generate(request, context)
        self._refuse_oversize(response, *_FEWER)
        self._shown(asked, response.revision, response.items)
        return response

    async def _generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> tuple[generation_pb2.GenerateResponse, _Asked]:
        started = time.monotonic()
        asked = await self._spec(request, context)
        spec = asked.spec
        response = generation_pb2.GenerateResponse(
            generation_id=spec.generation_id, prompt_reading=_reading(asked.reading), arms=asked.arms
        )
        items: list[generation_pb2.Item] = []
        async with aclosing(self._engine.run(spec, _Charges(spec))) as events:
            async for event in events:
                if isinstance(event, engine_pb2.ItemsDone):
                    items.extend(map(_item, event.items))
                else:
                    response.revision, response.served_by = event.revision, _served_by(bool(event.revision))
                    _end(response, event, started)
        response.items.extend(sorted(items, key=lambda item: item.index))
        return response, asked

    async def StreamGenerate(
        self, request: generation_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        started = time.monotonic()
        asked = await self._spec(request, context)
        spec = asked.spec
        shown: list[generation_pb2.Item] = []
        revision = ""
        try:
            async with aclosing(self._engine.run(spec, _Charges(spec))) as events:
                async for event in events:
                    revision = event.revision
                    response = generation_pb2.StreamGenerateResponse(
                        generation_id=spec.generation_id, revision=revision, served_by=_served_by(bool(revision))
                    )
                    if isinstance(event, engine_pb2.RunDone):
                        _end(response, event, started)
                        response.arms.update(asked.arms)
                        if said := _reading(asked.reading):
                            response.prompt_reading.CopyFrom(said)
                        yield response
                        return
                    for item in event.items:
                        response.item.CopyFrom(_item(item))
                        self._refuse_oversize(response, *_SMALLER)
                        shown.append(_without_image(response.item))
                        yield response
        finally:
            if shown:  # also where the caller has seen enough, or the engine fails
                self._shown(asked, revision, shown)

    async def GenerateMany(
        self, request: generation_pb2.GenerateManyRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateManyResponse]:
        """Runs up to MANY_AT_ONCE of the generations at the same time; a caller who does not read stops the rest."""
        validation.check_many(request)
        waiting = deque(enumerate(request.requests))
        running: set[asyncio.Task[tuple[generation_pb2.GenerateManyResponse, _Asked | None]]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < MANY_AT_ONCE:
                    running.add(asyncio.create_task(self._one_of_many(*waiting.popleft(), context)))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    response, asked = finished.result()
                    if asked is not None:
                        self._shown(asked, response.generation.revision, response.generation.items)
                    yield response
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _one_of_many(
        self, index: int, request: generation_pb2.GenerateRequest, context: Context
    ) -> tuple[generation_pb2.GenerateManyResponse, _Asked | None]:
        """One response, and the request where items were made."""
        code, started, asked = "OK", time.monotonic(), None
        try:
            generation, asked = await self._generate(request, context)
            response = generation_pb2.GenerateManyResponse(index=index, generation=generation)
            self._refuse_oversize(response, *_FEWER)
        except asyncio.CancelledError:
            code = ending(context)
            raise
        except Exception as error:
            response, asked = generation_pb2.GenerateManyResponse(index=index, error=_error(error)), None
            code = Status(response.error.code).name
        finally:
            count(ONE_OF_MANY, code, started)
        return response, asked

    async def GetItem(self, request: generation_pb2.GetItemRequest, context: Context) -> generation_pb2.GetItemResponse:
        violations: list[Violation] = []
        validation.check_get_item(request, violations)
        validation.refuse(violations)
        user = caller.get().charge(request.user)
        rendered = await self._engine.render_item(
            engine_pb2.RenderItemRequest(
                request_id=request_id.get(),
                tenant=user.tenant,
                user=user.user,
                item_id=request.item_id,
                image=encoding_to_wire(_encoding(request.image)),
            )
        )
        notes = Notes.decode(rendered.notes)
        response = generation_pb2.GetItemResponse(
            item=_item(rendered.item),
            generation_id=rendered.generation_id,
            revision=rendered.revision,
            prompt=rendered.prompt,
            metadata=notes.metadata,
            tags=notes.tags,
        )
        self._refuse_oversize(response, *_SMALLER)
        return response

    def _shown(self, asked: _Asked, revision: str, items: Sequence[generation_pb2.Item]) -> None:
        """Notes what the answer shows, behind it."""
        self._impressions.keep(asked.spec.user, _impression(asked, revision, items))
        self._trials.shown(asked.spec.user, asked.arms, len(items))

    async def _spec(self, request: validation.GenerateRequest, context: Context) -> _Asked:
        violations: list[Violation] = []
        validation.check_generation(request, self._limits, violations)
        vocabulary = Vocabulary()
        asked = [name for name in _PROMPTING if getattr(request, name)]
        if asked:
            backbone = await self._backbone.info()
            vocabulary = backbone.vocabulary
            if not backbone.takes_prompt:
                violations += [Violation(name, "the deployed backbone takes no prompt") for name in asked]
        validation.refuse(violations)
        reading = vocabulary.read(request.prompt)
        remaining = context.time_remaining()
        user = caller.get().charge(request.user, request.count)
        assigned = self._trials.assign(user, [each.name for each, _ in request.ListFields()])
        tried = assigned.options
        spec = GenerationSpec(
            request_id=request_id.get(),
            generation_id=uuid.uuid4().hex,
            user=user,
            count=request.count,
            seed=request.seed if request.HasField("seed") else _random_seed(request.count),
            prompt=reading.prompt,
            sampler=_SAMPLERS[request.sampler],
            steps=request.steps,
            revision=request.revision or str(tried.get("revision", "")),
            exploration=request.exploration if request.HasField("exploration") else float(tried.get("exploration", -1)),
            deadline=0.0 if remaining is None else time.monotonic() + remaining,
            traceparent=tracing.current().traceparent,
            guidance=request.guidance_scale if request.HasField("guidance_scale") else -1.0,
            negative_prompt=vocabulary.read(request.negative_prompt).prompt,
            min_like_probability=request.min_like_probability or float(tried.get("min_like_probability", 0)),
            overdraw=request.overdraw or float(tried.get("overdraw", 0)),
            image=_encoding(request.image),
            notes=Notes(dict(request.metadata), tuple(request.tags)),
        )
        tracing.current().note({"papa.generation_id": spec.generation_id})
        return _Asked(spec, reading, assigned.arms)

    def _refuse_oversize(self, response: Message, field: str, advice: str) -> None:
        """`response` is the message as it is sent. Raises InvalidRequest."""
        size = response.ByteSize()
        if size > self._limits.max_message_bytes:
            raise InvalidRequest([Violation(field, f"makes an answer of {size} bytes; {advice}")])


class _Charges:
    """Charges the draws that a generation takes beyond its items, as it takes them; the items are paid for already."""

    def __init__(self, spec: GenerationSpec) -> None:
        self._user, self._charged = spec.user, spec.count

    def __call__(self, event: Event) -> None:
        more = event.drawn - self._charged
        if more > 0:
            caller.get().owe(self._user, more)
            self._charged += more


def _error(error: Exception) -> generation_pb2.GenerationError:
    """The outcome of one of many generations that failed."""
    public = logged("GenerationService/GenerateMany", error)
    return generation_pb2.GenerationError(
        code=int(public.status),
        reason=public.reason,
        message=public_message(public),
        field=public.field,
        retry_after_seconds=retry_after(public) or 0.0,
    )


def _random_seed(count: int) -> int:
    """A seed so small that the seed of the last item, `seed + count − 1`, is at most MAX_RANDOM_SEED as well."""
    return secrets.randbelow(MAX_RANDOM_SEED - count)


def _encoding(image: generation_pb2.ImageOptions) -> ImageEncoding:
    return ImageEncoding(_FORMATS[image.format], image.max_edge, image.quality)


def _reading(reading: Reading) -> generation_pb2.PromptReading | None:
    """None where there is nothing to say."""
    if not reading.read_as and not reading.unknown:
        return None
    return generation_pb2.PromptReading(prompt=reading.prompt, read_as=reading.read_as, unknown_words=reading.unknown)


def _item(item: engine_pb2.EngineItem) -> generation_pb2.Item:
    return generation_pb2.Item(
        item_id=item.item_id,
        image=item.image,
        content_type=item.content_type,
        seed=item.seed,
        index=item.index,
        served_by=_served_by(item.adapter),
        like_probability=item.like_probability if item.HasField("like_probability") else None,
        exploring=item.exploring,
    )


def _without_image(item: generation_pb2.Item) -> generation_pb2.Item:
    """What is needed of an item that was sent."""
    kept = generation_pb2.Item()
    kept.CopyFrom(item)
    kept.ClearField("image")
    return kept


def _impression(asked: _Asked, revision: str, items: Sequence[generation_pb2.Item]) -> Impression:
    shown = [
        ShownItem(item.item_id, item.like_probability if item.HasField("like_probability") else None, item.exploring)
        for item in items
    ]
    spec = asked.spec
    return Impression("generation_id", spec.generation_id, shown, revision, arms=asked.arms, notes=spec.notes)


def _served_by(adapter: bool) -> generation_pb2.ServedBy.ValueType:
    return generation_pb2.SERVED_BY_ADAPTER if adapter else generation_pb2.SERVED_BY_BASE


def _end(
    response: generation_pb2.GenerateResponse | generation_pb2.StreamGenerateResponse,
    done: engine_pb2.RunDone,
    started: float,
) -> None:
    """What the end of a run says of the whole generation. A generator of a former release counts no draws."""
    response.timings.CopyFrom(_timings(done, started))
    response.noise_version = done.noise_version
    response.drawn = done.drawn
    response.acceptance = done.accepted / done.drawn if done.drawn else 1.0


def _timings(done: engine_pb2.RunDone, started: float) -> generation_pb2.Timings:
    return generation_pb2.Timings(
        queued_seconds=done.queued_seconds,
        denoising_seconds=done.denoising_seconds,
        adapter_load_seconds=done.adapter_load_seconds,
        total_seconds=time.monotonic() - started,
    )
