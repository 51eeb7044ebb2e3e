"""FeedbackService. An event is acknowledged once the log has it, never before."""

# ruff: noqa: N802 - the protos name the methods

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from papa_serving import tracing
from papa_serving.contracts.errors import PapaError, Status
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent, FeedbackLog
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.events import Converted, EventReader, violations_of
from papa_serving.gateway.experiments import Trials
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.rpc.edge import Context
from papa_serving.gateway.rpc.inflow import Inflow
from papa_serving.gateway.rpc.status import public_message, retry_after
from papa_serving.metrics import FEEDBACK_EVENTS, FEEDBACK_LABELS, TYPED_EVENTS
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import feedback_pb2, feedback_pb2_grpc

log = logging.getLogger(__name__)

MAX_ORIGINS = 8
"""Generations and recommendations that a span names as what its events came from."""
MAX_EVENTS = 256
MAX_BYTES = 4 * 2**20
"""The most that one stream buffers while its worker appends. Beyond it, HTTP/2's flow control stops the caller."""

COHORTS = ("1-10", "11-30", "31-100", "101-300", "301-1000", "1001+")
"""Users by how many labels they have given: few, fixed groups, none of which tells who anybody is. Like cohorts by date
of arrival, they show whether users like more the more they have taught the service."""
_LAST = (10, 30, 100, 300, 1000)
_FAULTS = (Status.UNAVAILABLE, Status.DATA_LOSS)
"""Codes of outcomes that are the service's own fault."""


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    """Converts events and appends them to the log."""

    def __init__(
        self, limits: GatewaySettings, log: FeedbackLog, reader: EventReader, drain: Drain, trials: Trials
    ) -> None:
        self._limits, self._log, self._reader, self._drain, self._trials = limits, log, reader, drain, trials

    async def SubmitFeedback(
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        """All or nothing for malformed events; one outcome per event otherwise, unless none was accepted."""
        validation.check_batch(request, self._limits)
        with tracing.span("append feedback", "producer", attributes={"papa.events": len(request.events)}) as span:
            converted = await self._reader.read(request.events, lambda index: f"events[{index}].", _deadline(context))
            if violations := violations_of(converted):
                FEEDBACK_EVENTS.labels("INVALID_REQUEST").inc(len(converted))
                validation.refuse(violations)
            results = await self._append(converted, request.events)
            span.note({"papa.accepted": _accepted(results), **_origins(request.events)})
        first = results[0].error
        if first is not None and all(result.error for result in results):
            raise first
        return feedback_pb2.SubmitFeedbackResponse(outcomes=map(_outcome, results))

    async def StreamFeedback(
        self, request_iterator: AsyncIterator[feedback_pb2.StreamFeedbackRequest], context: Context
    ) -> AsyncIterator[feedback_pb2.StreamFeedbackResponse]:
        """Appends whatever has arrived as one group while the next group is being read."""
        inflow = Inflow[feedback_pb2.FeedbackEvent](MAX_EVENTS, MAX_BYTES)
        filling = asyncio.create_task(inflow.fill(request_iterator, lambda request: request.event))
        try:
            while True:
                async with self._drain.endless_wait():
                    group = await inflow.take()
                if not group:
                    return
                for result in await self._appended_group(group, _deadline(context)):
                    yield feedback_pb2.StreamFeedbackResponse(outcome=_outcome(result))
                del group
        finally:
            filling.cancel()

    async def _appended_group(
        self, group: Sequence[feedback_pb2.FeedbackEvent], deadline: float | None
    ) -> list[AppendResult]:
        """Appends one group in a trace of its own: a stream may last for days, and its span appears when it ends."""
        stream = tracing.current().traceparent
        attributes = {"papa.events": len(group)}
        with tracing.span("append feedback", "producer", parent="", attributes=attributes) as span:
            span.link(stream)
            converted = await self._reader.read(group, lambda _: "", deadline)
            try:
                results = await self._append(converted, group)
            except PapaError as error:
                span.settle(error.reason)
                results = [
                    AppendResult(message.event_id, error=result if isinstance(result, PapaError) else error)
                    for message, result in zip(group, converted, strict=True)
                ]
                _log_faults(results)
                return results
            span.note({"papa.accepted": _accepted(results), **_origins(group)})
            return results

    async def _append(
        self, converted: Sequence[Converted], messages: Sequence[feedback_pb2.FeedbackEvent]
    ) -> list[AppendResult]:
        """Appends the events among `converted`. Results have the order of `converted`, errors included."""
        events = [each for each in converted if isinstance(each, FeedbackEvent)]
        try:
            appended = iter(await self._log.append(events) if events else ())
        except PapaError as error:
            FEEDBACK_EVENTS.labels(error.reason).inc(len(events))
            raise
        results = [
            AppendResult(message.event_id, error=each) if isinstance(each, PapaError) else next(appended)
            for message, each in zip(messages, converted, strict=True)
        ]
        self._trials.did(_count(converted, results))
        _log_faults(results)
        return results


def cohort_of(sequence: int) -> str:
    """The cohort in which an accepted event counts, by its number among its user's events."""
    return COHORTS[bisect_left(_LAST, sequence)]


def _count(converted: Sequence[Converted], results: Sequence[AppendResult]) -> list[FeedbackEvent]:
    """Counts outcomes, types and labels. Returns the events that are news."""
    for outcome, number in Counter(map(_outcome_name, results)).items():
        FEEDBACK_EVENTS.labels(outcome).inc(number)
    news = [
        (event, result)
        for event, result in zip(converted, results, strict=True)
        if isinstance(event, FeedbackEvent) and result.error is None and not result.duplicate
    ]
    for kind, number in Counter(event.attribution.type for event, _ in news if event.attribution.type).items():
        TYPED_EVENTS.labels(kind).inc(number)
    labels = Counter(
        (cohort_of(result.sequence), event.grade > 0)
        for event, result in news
        if event.is_label and not result.item_gone
    )
    for cohort in {cohort for cohort, _ in labels}:
        # Both labels, so that a cohort without likes shows a share of 0 instead of no share.
        FEEDBACK_LABELS.labels("like", cohort).inc(labels[cohort, True])
        FEEDBACK_LABELS.labels("dislike", cohort).inc(labels[cohort, False])
    return [event for event, _ in news]


def _log_faults(results: Sequence[AppendResult]) -> None:
    """Logs what is the service's own fault. Each caller learns of it by an outcome, and the edge sees no error."""
    faults = {
        str(each.error): each.error for each in results if each.error is not None and each.error.status in _FAULTS
    }
    for error in faults.values():
        trace = error if error.status is Status.DATA_LOSS else None
        log.warning("feedback was not taken: %s", error.message, exc_info=trace, extra={"reason": error.reason})


def _deadline(context: Context) -> float | None:
    """The deadline by the monotonic clock; None for a caller without one."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _origins(messages: Sequence[feedback_pb2.FeedbackEvent]) -> dict[str, str]:
    """The attributes of a span that say which generations and recommendations led to the events."""
    generations = dict.fromkeys(each.generation_id for each in messages if each.generation_id)
    recommendations = dict.fromkeys(each.recommendation_id for each in messages if each.recommendation_id)
    named = {"papa.generation_id": generations, "papa.recommendation_id": recommendations}
    return {name: ",".join(list(ids)[:MAX_ORIGINS]) for name, ids in named.items() if ids}


def _accepted(results: Sequence[AppendResult]) -> int:
    return sum(result.error is None for result in results)


def _outcome_name(result: AppendResult) -> str:
    if result.error is not None:
        return result.error.reason
    return "duplicate" if result.duplicate else "accepted"


def _outcome(result: AppendResult) -> feedback_pb2.FeedbackOutcome:
    if result.error is None:
        ack = feedback_pb2.FeedbackAck(duplicate=result.duplicate, sequence=result.sequence, item_gone=result.item_gone)
        return feedback_pb2.FeedbackOutcome(event_id=result.event_id, ack=ack)
    error = feedback_pb2.FeedbackError(
        code=int(result.error.status),
        reason=result.error.reason,
        message=public_message(result.error),
        field=result.error.field,
        retry_after_seconds=retry_after(result.error) or 0.0,
    )
    return feedback_pb2.FeedbackOutcome(event_id=result.event_id, error=error)
