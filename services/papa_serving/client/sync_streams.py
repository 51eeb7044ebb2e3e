"""The two streams of the blocking client: items as they finish, outcomes as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import grpc

from papa_serving.client import wire
from papa_serving.client.errors import ended_early, error_of_repeatable
from papa_serving.client.records import Item, Outcome, PromptReading, ServedBy, Timings
from papa_serving.client.retry import Attempts
from papa_serving.client.window import Sending, Window
from papa_serving.contracts.errors import PapaError
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2

Requests = Iterator[feedback_pb2.StreamFeedbackRequest]


class ItemStream(Iterator[Item]):
    """Yields items in the order in which they finish. The summary of the generation is known after the last item.

    A failure before the first item is retried; a later one is raised.
    """

    generation_id: str = ""
    revision: str = ""
    served_by: ServedBy | None = None
    timings: Timings | None = None
    prompt_reading: PromptReading | None = None
    request_id: str = ""
    noise_version: int = 1
    acceptance: float = 1.0
    drawn: int = 0
    arms: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        start: Callable[[], grpc.CallIterator[generation_pb2.StreamGenerateResponse]],
        attempts: Attempts,
        closed: Callable[[], bool],
    ) -> None:
        self._start, self._attempts, self._closed = start, attempts, closed
        self._cancelled = False
        self.request_id = attempts.request_id
        self._call = start()
        self._messages = iter(self._call)
        self._any = False

    def __next__(self) -> Item:
        while True:
            try:
                message = next(self._messages)
            except grpc.RpcError as failure:
                self._try_again(failure)
                continue
            self._any = True
            self.generation_id, self.revision = message.generation_id, message.revision
            self.served_by = wire.served_by(message.served_by)
            if message.HasField("item"):
                return wire.item(message.item)
            self.timings = wire.timings(message.timings)
            self.prompt_reading = wire.prompt_reading(message)
            self.noise_version = message.noise_version or 1
            self.acceptance, self.drawn = wire.acceptance(message), message.drawn
            self.arms = dict(message.arms)

    def cancel(self) -> None:
        """Ends the generation early; the next item raises CallFailed (CANCELLED)."""
        self._cancelled = True
        self._call.cancel()  # type: ignore[no-untyped-call]

    def _try_again(self, failure: grpc.RpcError) -> None:
        error = error_of_repeatable(failure, self._cancelled or self._closed())
        if self._any:
            raise self._attempts.name(error)
        time.sleep(self._attempts.pause_after(error))
        self._call = self._start()
        self._messages = iter(self._call)
        if self._cancelled:  # during the pause
            self._call.cancel()  # type: ignore[no-untyped-call]


class FeedbackStream(Iterator[Outcome]):
    """Yields outcomes in the order of the events.

    Leaving the `with` block, or `close`, stops early. Unanswered events may then have been accepted or not; sending
    them again under the same event_ids is harmless. gRPC reads the requests of each connection on a separate thread.
    `_source_lock` lets only one of these threads read the caller's iterator at a time. An event that the thread of a
    lost connection has read is sent on the next connection.
    """

    def __init__(
        self,
        start: Callable[[Requests], grpc.CallIterator[feedback_pb2.StreamFeedbackResponse]],
        source: Iterator[Sending],
        window: int,
        attempts: Attempts,
        closed: Callable[[], bool],
    ) -> None:
        self._start, self._source, self._attempts, self._closed = start, source, attempts, closed
        self._ended = False
        self._window = Window(window)
        self._changed = threading.Condition()
        self._source_lock = threading.Lock()
        self._source_error: Exception | None = None
        self._connection = 0
        self._call = start(self._requests(0))
        self._messages = iter(self._call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading events and ends the call."""
        self._ended = True
        with self._changed:
            self._connection += 1
            self._changed.notify_all()
        self._call.cancel()  # type: ignore[no-untyped-call]

    def __next__(self) -> Outcome:
        while True:
            try:
                message = next(self._messages).outcome
            except grpc.RpcError as failure:
                self._reconnect(error_of_repeatable(failure, self._ended or self._closed()))
            except StopIteration:
                if not self._window.finished:
                    self._reconnect(ended_early())
                    continue
                self._raise_source_error()
                raise
            else:
                self._attempts.succeed()
                with self._changed:
                    sent = self._window.answered(message)
                    self._changed.notify_all()
                return sent.outcome(message)

    def _reconnect(self, error: PapaError) -> None:
        try:
            time.sleep(self._attempts.pause_after(error))
        except PapaError:
            self.close()
            raise
        with self._changed:
            self._connection += 1
            self._window.reconnect()
            self._changed.notify_all()
            connection = self._connection
        self._call = self._start(self._requests(connection))
        self._messages = iter(self._call)
        if self._ended:  # during the pause
            self._call.cancel()  # type: ignore[no-untyped-call]

    def _raise_source_error(self) -> None:
        if self._source_error is not None:
            raise self._source_error

    def _requests(self, connection: int) -> Requests:
        """The requests of this connection, until it is replaced or the source ends."""
        while True:
            with self._changed:
                if connection != self._connection:
                    return
                request = self._window.next_request()
                if request is None and self._window.exhausted:
                    return
                if request is None and not self._window.may_read:
                    self._changed.wait()
                    continue
            if request is not None:
                yield request
            else:
                self._read_source(connection)

    def _read_source(self, connection: int) -> None:
        with self._source_lock:
            with self._changed:
                # Another thread may have read the event while this one waited for the lock.
                if connection != self._connection or self._window.unsent or not self._window.may_read:
                    return
            try:
                event = next(self._source, None)
            except Exception as error:  # the caller's own iterator; raised again where outcomes are read
                self._source_error, event = error, None
            with self._changed:
                if event is None:
                    self._window.exhausted = True
                else:
                    self._window.add(event)
