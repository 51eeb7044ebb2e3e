"""Converts between the engine's protobuf messages and the contracts."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np
import torch
from numpy.typing import NDArray

from papa_serving.contracts import limits
from papa_serving.contracts.attribution import Notes
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.errors import InvalidRequest, PapaError, Violation
from papa_serving.contracts.generation import (
    IMAGE_FORMATS,
    GeneratedItem,
    GenerationDone,
    GenerationSpec,
    ImageEncoding,
    RenderedItem,
)
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import unpack_sample
from papa_serving.generator.embedding import Embedder
from papa_serving.generator.generation import Event
from papa_serving.stubs.engine.v1 import engine_pb2


def spec_from_wire(request: engine_pb2.RunRequest) -> GenerationSpec:
    """The request as the generator knows it. Raises InvalidRequest for one that exceeds papa_serving.contracts.limits.

    The gateway has checked all this for its callers. The engine checks it again: memory and time of one generation must
    be bounded whoever reaches this port.
    """
    check_run_request(request)
    return GenerationSpec(
        request_id=request.request_id,
        generation_id=request.generation_id,
        user=UserKey(request.tenant, request.user),
        count=request.count,
        seed=request.seed,
        prompt=request.prompt,
        sampler=request.sampler,
        steps=request.steps,
        revision=request.revision,
        exploration=request.exploration,
        deadline=time.monotonic() + request.seconds_left if request.seconds_left > 0 else 0.0,
        traceparent=request.traceparent,
        guidance=request.guidance,
        negative_prompt=request.negative_prompt,
        min_like_probability=request.min_like_probability,
        overdraw=request.overdraw,
        image=encoding_from_wire(request.image),
        notes=_notes(request.notes),
    )


def _notes(data: bytes) -> Notes:
    """Raises InvalidRequest."""
    try:
        return Notes.decode(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidRequest([Violation("notes", f"cannot be read: {error}")]) from error


def encoding_from_wire(message: engine_pb2.ImageEncoding) -> ImageEncoding:
    """How images are encoded; what a gateway of a former release leaves out is PNG."""
    return ImageEncoding(message.format or ImageEncoding.format, message.max_edge, message.quality)


def check_run_request(request: engine_pb2.RunRequest) -> None:
    """Raises InvalidRequest; written so that a NaN is refused as well."""
    findings = {
        "tenant": len(request.tenant) <= limits.MAX_ID,
        "user": 1 <= len(request.user) <= limits.MAX_ID,
        "generation_id": 1 <= len(request.generation_id) <= limits.MAX_ID,
        "request_id": len(request.request_id) <= limits.MAX_ID,
        "count": 1 <= request.count <= limits.MAX_COUNT,
        "prompt": len(request.prompt) <= limits.MAX_PROMPT,
        "negative_prompt": len(request.negative_prompt) <= limits.MAX_PROMPT,
        "seed": request.seed <= limits.MAX_SEED,
        "sampler": len(request.sampler) <= limits.MAX_ID,
        "steps": request.steps <= limits.MAX_STEPS,
        "revision": len(request.revision) <= limits.MAX_ID,
        "exploration": request.exploration <= 1.0,
        "guidance": request.guidance <= limits.MAX_GUIDANCE,
        "min_like_probability": 0.0 <= request.min_like_probability <= 1.0,
        "overdraw": request.overdraw == 0 or 1.0 <= request.overdraw <= limits.MAX_OVERDRAW,
        **_encoding_findings(request.image),
        "seconds_left": 0.0 <= request.seconds_left < math.inf,
        "traceparent": len(request.traceparent) <= limits.MAX_ID,
        "notes": len(request.notes) <= limits.MAX_NOTES_BYTES,
    }
    _refuse(findings)


def _encoding_findings(image: engine_pb2.ImageEncoding) -> dict[str, bool]:
    return {
        "image.format": image.format in ("", *IMAGE_FORMATS),
        "image.max_edge": image.max_edge <= limits.MAX_EDGE,
        "image.quality": image.quality <= limits.MAX_QUALITY,
    }


def check_render_request(request: engine_pb2.RenderItemRequest) -> None:
    """Raises InvalidRequest."""
    findings = {
        "request_id": len(request.request_id) <= limits.MAX_ID,
        "tenant": len(request.tenant) <= limits.MAX_ID,
        "user": 1 <= len(request.user) <= limits.MAX_ID,
        "item_id": 1 <= len(request.item_id) <= limits.MAX_ID,
        **_encoding_findings(request.image),
    }
    _refuse(findings)


def check_pack_request(request: engine_pb2.PackAdapterRequest) -> None:
    """Raises InvalidRequest."""
    findings = {
        "request_id": len(request.request_id) <= limits.MAX_ID,
        "backbone": len(request.backbone) <= limits.MAX_ID,
        "parent": len(request.parent) <= limits.MAX_ID,
        "created_at": math.isfinite(request.created_at),
        "files": set(request.files) <= set(limits.ADAPTER_FILES)
        and sum(map(len, request.files.values())) <= limits.MAX_ENGINE_MESSAGE_BYTES,
    }
    _refuse(findings)


def pictures_from_wire(request: engine_pb2.EmbedRequest, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The pictures of a request, in the backbone's picture shape. Shape: [n, *shape]; n may be 0.

    Raises InvalidRequest.
    """
    findings = {
        "request_id": len(request.request_id) <= limits.MAX_ID,
        "tenant": len(request.tenant) <= limits.MAX_ID,
        "samples": len(request.samples) <= limits.MAX_EMBEDDED,
    }
    _refuse(findings)
    pictures = [_picture(sample, shape) for sample in request.samples]
    return np.stack(pictures) if pictures else np.zeros((0, *shape), np.uint8)


def _picture(sample: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    try:
        values = unpack_sample(sample)
    except ValueError as error:
        raise InvalidRequest([Violation("samples", str(error))]) from error
    if values.dtype != np.uint8 or values.shape != shape:
        raise InvalidRequest([Violation("samples", f"a sample is {values.dtype} {values.shape}, not uint8 {shape}")])
    return values.astype(np.uint8, copy=False)


def _refuse(findings: dict[str, bool]) -> None:
    bad = [Violation(field, "exceeds what the engine takes") for field, good in findings.items() if not good]
    if bad:
        raise InvalidRequest(bad)


async def embed(
    embedder: Embedder, encoder: Encoder, request: engine_pb2.EmbedRequest, shape: tuple[int, int, int]
) -> engine_pb2.Embedded:
    """Answers EngineService.Embed; `shape` is that of the backbone's pictures.

    Raises InvalidRequest, QueueFull, GeneratorUnavailable.
    """
    pictures = torch.from_numpy(pictures_from_wire(request, shape))
    answer = engine_pb2.Embedded(encoder=encoder.name, size=encoder.size)
    if len(pictures):
        chunks = await asyncio.gather(*map(asyncio.wrap_future, embedder.submit(request.tenant, pictures)))
        answer.embeddings.extend(row.tobytes() for chunk in chunks for row in chunk.numpy())
    return answer


def event_to_wire(event: Event) -> engine_pb2.RunResponse:
    """Finished items, or the end of the generation."""
    if isinstance(event, GenerationDone):
        return engine_pb2.RunResponse(
            done=engine_pb2.RunDone(
                revision=event.revision,
                queued_seconds=event.timings.queued,
                denoising_seconds=event.timings.denoising,
                adapter_load_seconds=event.timings.adapter_load,
                noise_version=event.noise_version,
                drawn=event.drawn,
                accepted=event.accepted,
            )
        )
    revision = next((item.revision for item in event.items if item.revision), "")
    items = [_item_to_wire(item) for item in event.items]
    return engine_pb2.RunResponse(items=engine_pb2.ItemsDone(items=items, revision=revision, drawn=event.drawn))


def rendered_to_wire(rendered: RenderedItem) -> engine_pb2.RenderItemResponse:
    """A stored item, encoded again."""
    return engine_pb2.RenderItemResponse(
        rendered=engine_pb2.RenderedItem(
            item=_item_to_wire(rendered.item),
            generation_id=rendered.generation_id,
            revision=rendered.item.revision,
            prompt=rendered.prompt,
            notes=rendered.notes.encode(),
        )
    )


def error_to_wire(error: PapaError) -> engine_pb2.RunResponse:
    """A typed error as an event of the stream."""
    return engine_pb2.RunResponse(error=run_error(error))


def run_error(error: PapaError) -> engine_pb2.RunError:
    """A typed error on the wire; of several violations the first one, with its field beside the message."""
    if isinstance(error, InvalidRequest):
        first = error.violations[0]
        return engine_pb2.RunError(reason=error.reason, message=first.description, metadata={"field": first.field})
    return engine_pb2.RunError(
        reason=error.reason,
        message=error.message,
        retry_after_seconds=error.retry_after or 0.0,
        metadata=error.metadata,
    )


def _item_to_wire(item: GeneratedItem) -> engine_pb2.EngineItem:
    return engine_pb2.EngineItem(
        item_id=item.item_id,
        image=item.image,
        content_type=item.content_type,
        seed=item.seed,
        index=item.index,
        adapter=bool(item.revision),
        like_probability=item.like_probability,
        exploring=item.exploring,
    )
