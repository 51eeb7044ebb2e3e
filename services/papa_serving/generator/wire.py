"""Converts between the engine's protobuf messages and the contracts."""

from __future__ import annotations

import time

from papa_serving.contracts.errors import InvalidRequest, PapaError
from papa_serving.contracts.generation import GeneratedItem, GenerationDone, GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.generation import Event
from papa_serving.stubs.engine.v1 import engine_pb2


def spec_from_wire(request: engine_pb2.RunRequest) -> GenerationSpec:
    """The request as the generator knows it."""
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
    )


def event_to_wire(event: Event) -> engine_pb2.RunResponse:
    """Finished items, or the end of the generation."""
    if isinstance(event, GenerationDone):
        return engine_pb2.RunResponse(
            done=engine_pb2.RunDone(
                revision=event.revision,
                queued_seconds=event.timings.queued,
                denoising_seconds=event.timings.denoising,
                adapter_load_seconds=event.timings.adapter_load,
            )
        )
    revision = next((item.revision for item in event if item.revision), "")
    return engine_pb2.RunResponse(
        items=engine_pb2.ItemsDone(items=[_item_to_wire(item) for item in event], revision=revision)
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
    )
