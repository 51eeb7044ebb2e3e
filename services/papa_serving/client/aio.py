"""The asyncio client: the same methods as the blocking one."""

# ruff: noqa: ASYNC109 - a time-out goes onto the wire and covers all attempts; asyncio.timeout would do neither

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2

from papa_serving.client import catalogue_wire, wire
from papa_serving.client.aio_streams import AsyncFeedbackStream, AsyncItemStream
from papa_serving.client.batches import is_small, split
from papa_serving.client.calls import Calls, RevisionAwaited, Stubs, UnaryCall, names_options
from papa_serving.client.connection import Connection, Tls
from papa_serving.client.errors import CallFailed, WrongEventLoop, ended_early, error_of_repeatable
from papa_serving.client.many import in_calls
from papa_serving.client.records import (
    CatalogueItem,
    CatalogueList,
    Condition,
    DeadLetter,
    DeletionReceipt,
    ExperimentReport,
    FeedbackEvent,
    GenerateOptions,
    Generation,
    ImageOptions,
    ItemRecord,
    Limits,
    NewItem,
    Outcome,
    PutOutcome,
    Ranking,
    Recommendation,
    Revision,
    ServerInfo,
    User,
    UserExport,
    UserGeneration,
    UserState,
)
from papa_serving.client.retry import Attempts, Retry, Timeouts
from papa_serving.client.transfer import Assembly
from papa_serving.client.window import Sending
from papa_serving.contracts.errors import DeadlineExceeded

Answer = TypeVar("Answer")


class AsyncClient:
    """The asyncio client. It belongs to the event loop in which it is created.

    Create it inside a coroutine, for instance in a start-up hook. It raises WrongEventLoop outside of a running loop or
    on another loop. Methods, arguments, errors, retries and timeouts are those of Client.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        tenant: str = "",
        tls: Tls | None = None,
        token: str | Callable[[], str] | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        retry: Retry = Retry(),  # noqa: B008 - frozen
    ) -> None:
        self._loop = _running_loop()
        self._calls, self._timeouts, self._retry = Calls(tenant, timeouts), timeouts, retry
        self._limits: Limits | None = None
        self._closed = False
        self._connection = Connection(address, tls, token)
        self._channel = self._connection.aio_channel()
        self._services = Stubs(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends running calls and closes the connection."""
        self._closed = True
        await self._channel.close(None)

    @names_options
    async def generate(
        self, user: str | User, count: int, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Generates `count` items with the user's newest revision, or as the options (GenerateOptions) ask."""
        call = self._calls.generate(user, count, options)
        attempts = Attempts(self._retry, timeout or call.timeout)
        return replace(await self._attempt(call, attempts), request_id=attempts.request_id)

    @names_options
    async def generate_many(
        self,
        users: Iterable[str | User],
        count: int,
        *,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerator[UserGeneration, None]:
        """Generates `count` items for each of many users; see Client.generate_many."""
        for many in in_calls(self._calls, users, count, options):
            attempts = Attempts(self._retry, timeout or many.timeout(self._timeouts.generate))
            while many:
                call = self._stubs.generation.GenerateMany(
                    many.request(),
                    timeout=attempts.remaining(),
                    metadata=self._connection.metadata(attempts.request_id),
                )
                try:
                    async for message in call:
                        attempts.succeed()
                        yield many.result(message, attempts.request_id)
                    if many:
                        await asyncio.sleep(attempts.pause_after(ended_early()))
                except grpc.aio.AioRpcError as failure:
                    await asyncio.sleep(attempts.pause_after(error_of_repeatable(failure, self._closed)))
                finally:
                    call.cancel()

    @names_options
    def stream_generate(
        self, user: str | User, count: int, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncItemStream:
        """Generates the same items and yields each as soon as it is finished."""
        request = self._calls.stream_generate(user, count, options)
        attempts = Attempts(self._retry, timeout or self._timeouts.generate)
        return AsyncItemStream(
            lambda: self._stubs.generation.StreamGenerate(
                request, timeout=attempts.remaining(), metadata=self._connection.metadata(attempts.request_id)
            ),
            attempts,
            lambda: self._closed,
        )

    async def get_item(
        self, user: str | User, item_id: str, *, image: ImageOptions | None = None, timeout: float | None = None
    ) -> ItemRecord:
        """An item again, by its id, within its time to live; encoded as `image` asks. Raises ItemNotFound."""
        return await self._run(self._calls.get_item(user, item_id, image), timeout)

    async def submit_feedback(self, events: Sequence[FeedbackEvent], *, timeout: float | None = None) -> list[Outcome]:
        """Sends events and returns one outcome per event, in order. An acknowledged event is durable."""
        messages = self._calls.events(events)
        limits = Limits() if is_small(messages) else await self._known_limits()
        outcomes: list[Outcome] = []
        for part in split(messages, limits):
            answered: list[Outcome] = await self._run(self._calls.submit_feedback(part), timeout)
            outcomes += answered
        return outcomes

    async def like(self, user: str | User, item_id: str) -> Outcome:
        """Sends a like of one item. Raises ItemNotFound."""
        return (await self.submit_feedback([FeedbackEvent(user, 1.0, item_id=item_id)]))[0]

    async def dislike(self, user: str | User, item_id: str) -> Outcome:
        """Sends a dislike of one item. Raises ItemNotFound."""
        return (await self.submit_feedback([FeedbackEvent(user, -1.0, item_id=item_id)]))[0]

    async def take_back(self, user: str | User, event_id: str) -> Outcome:
        """Takes back an earlier like or dislike. Raises EventNotFound."""
        return (await self.submit_feedback([FeedbackEvent.taking_back(user, event_id)]))[0]

    def stream_feedback(
        self, events: AsyncIterable[FeedbackEvent] | Iterable[FeedbackEvent], *, window: int = 1024
    ) -> AsyncFeedbackStream:
        """Sends events as they come and yields one outcome per event, in order; see Client.stream_feedback."""
        attempts = Attempts(self._retry, None)
        return AsyncFeedbackStream(
            lambda requests: self._stubs.feedback.StreamFeedback(
                requests, metadata=self._connection.metadata(attempts.request_id)
            ),
            events,
            self._stream_event,
            window,
            attempts,
            lambda: self._closed,
        )

    async def server_info(self) -> ServerInfo:
        """The version, limits and backbone of the deployment."""
        info = await self._run(self._calls.server_info())
        self._limits = info.limits
        return info

    async def experiments(self, *, tenant: str = "") -> list[ExperimentReport]:
        """How the arms of the deployment's experiments differ, among the users of a tenant.

        "" means the tenant of the client, then that of its credential. Needs the scope `admin`.
        """
        return await self._run(self._calls.experiments(tenant))

    async def get_user(self, user: str | User, *, timeout: float | None = None) -> UserState:
        """The user's present state; all zero for a user without feedback."""
        return await self._run(self._calls.get_user(user), timeout)

    async def list_users(self, *, tenant: str = "", page_size: int = 100) -> AsyncIterator[UserState]:
        """Yields the users of a tenant who have given feedback or have an adapter; see Client.list_users."""
        token, more = "", True
        while more:
            page, token = await self._run(self._calls.list_users(tenant, page_size, token))
            for state in page:
                yield state
            more = bool(token)

    async def watch_user(self, user: str | User, *, timeout: float | None = None) -> AsyncGenerator[UserState, None]:
        """Yields the state now and after each change, across reconnections; for ever if `timeout` is None."""
        request, attempts = self._calls.watch_user(user), Attempts(self._retry, timeout)
        while True:
            call = self._stubs.users.WatchUser(
                request, timeout=attempts.remaining(), metadata=self._connection.metadata(attempts.request_id)
            )
            try:
                async for response in call:
                    attempts.succeed()
                    yield wire.user_state(response.state)
                await asyncio.sleep(attempts.pause_after(ended_early()))
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_after(error_of_repeatable(failure, self._closed)))
            finally:
                call.cancel()

    async def wait_for_revision(
        self, user: str | User, *, after: str = "", settled: bool = False, timeout: float | None = 60.0
    ) -> Revision:
        """Waits until the user's current revision is newer than `after`; see Client.wait_for_revision."""
        awaited, seen = RevisionAwaited(after, settled), None
        try:
            async with aclosing(self.watch_user(user, timeout=timeout)) as states:
                while (revision := awaited.found_in(seen := await anext(states))) is None:
                    continue
        except DeadlineExceeded as late:
            raise awaited.missed(user, seen, late) from late
        return revision

    async def list_revisions(self, user: str | User, *, page_size: int = 100) -> AsyncIterator[Revision]:
        """Yields the user's revisions, newest first. Pages are fetched on demand."""
        token, more = "", True
        while more:
            page, token = await self._run(self._calls.list_revisions(user, page_size, token))
            for revision in page:
                yield revision
            more = bool(token)

    async def rollback(self, user: str | User, revision: str) -> UserState:
        """Serves an earlier revision from now on; the next update builds on it. Raises RevisionNotFound."""
        return await self._run(self._calls.rollback(user, revision))

    async def reset(self, user: str | User) -> UserState:
        """Serves the backbone from now on and forgets what was learned; the lineage is kept."""
        return await self._run(self._calls.reset(user))

    async def delete_user(self, user: str | User) -> DeletionReceipt:
        """Removes everything about the user; cannot be undone."""
        return await self._run(self._calls.delete_user(user))

    async def merge_users(self, guest: str | User, into: str | User) -> DeletionReceipt:
        """Makes the guest's labels and items those of `into`, and deletes the guest. Calling it again is harmless."""
        return await self._run(self._calls.merge_users(guest, into))

    async def export_user(self, user: str | User, *, revision: str = "", timeout: float | None = None) -> UserExport:
        """Exports all data of the user, with the files of `revision` ("" means the current one).

        Raises RevisionNotFound, RevisionDamaged.
        """
        request = self._calls.export_user(user, revision)
        attempts = Attempts(self._retry, timeout or self._timeouts.transfer)
        while True:
            assembly = Assembly()
            call = self._stubs.users.ExportUser(
                request, timeout=attempts.remaining(), metadata=self._connection.metadata(attempts.request_id)
            )
            try:
                async for message in call:
                    assembly.add(message)
                return assembly.result()
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_after(error_of_repeatable(failure, self._closed)))
            except ValueError:
                await asyncio.sleep(attempts.pause_after(ended_early()))
            finally:
                call.cancel()

    async def import_adapter(
        self, user: str | User, files: Mapping[str, bytes], *, backbone_hash: str = "", timeout: float | None = None
    ) -> Revision:
        """Makes an adapter of an export, or one in peft's format, the user's current revision.

        `backbone_hash` identifies the backbone that it was made for; "" takes the hash in manifest.json. Raises
        InvalidRequest for an adapter that does not fit.
        """
        return await self._run(self._calls.import_adapter(user, files, backbone_hash), timeout)

    async def dead_letters(self, user: str | User | None = None, *, page_size: int = 100) -> AsyncIterator[DeadLetter]:
        """Yields accepted events that no revision applied; see Client.dead_letters."""
        token, more = "", True
        while more:
            page, token = await self._run(self._calls.dead_letters(user, page_size, token))
            for letter in page:
                yield letter
            more = bool(token)

    async def retry_dead_letter(self, user: str | User, letter_id: str) -> bool:
        """Appends the event again as the user's newest; False if the letter does not exist any more."""
        return await self._run(self._calls.retry_dead_letter(user, letter_id))

    async def drop_dead_letter(self, user: str | User, letter_id: str) -> bool:
        """Removes the letter for good; False if it does not exist any more."""
        return await self._run(self._calls.drop_dead_letter(user, letter_id))

    async def put_catalogue_items(
        self, items: Sequence[NewItem], *, catalogue: str = "", timeout: float | None = None
    ) -> list[PutOutcome]:
        """Adds items to a catalogue of the tenant, or replaces those of the same id. One outcome per item, in order.

        Send a few hundred at a time. Sending items again is harmless and, where they are unchanged, cheap.
        """
        requests = self._calls.put_catalogue_items(items, catalogue)
        attempts = Attempts(self._retry, timeout or self._timeouts.transfer)
        while True:
            call = self._stubs.catalogue.PutItems(
                iter(requests), timeout=attempts.remaining(), metadata=self._connection.metadata(attempts.request_id)
            )
            try:
                outcomes = [catalogue_wire.outcome(response) async for response in call]
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_after(error_of_repeatable(failure, self._closed)))
                continue
            if len(outcomes) == len(requests):
                return outcomes
            await asyncio.sleep(attempts.pause_after(ended_early()))

    async def delete_catalogue_items(self, item_ids: Sequence[str], *, catalogue: str = "") -> int:
        """Removes items, which no search finds any more, and returns how many there were."""
        return await self._run(self._calls.delete_catalogue_items(item_ids, catalogue))

    async def get_catalogue_item(self, item_id: str, *, catalogue: str = "") -> CatalogueItem:
        """One item of a catalogue. Raises ItemNotFound."""
        return await self._run(self._calls.get_catalogue_item(item_id, catalogue))

    async def list_catalogue_items(self, *, catalogue: str = "", page_size: int = 100) -> AsyncIterator[CatalogueItem]:
        """Yields the items of a catalogue in the order of their ids. Pages are fetched on demand."""
        token, more = "", True
        while more:
            page, token = await self._run(self._calls.list_catalogue_items(catalogue, page_size, token))
            for item in page:
                yield item
            more = bool(token)

    async def catalogues(self) -> CatalogueList:
        """The tenant's catalogues, and the encoder that items are embedded by."""
        return await self._run(self._calls.catalogues())

    async def recommend(
        self,
        user: str | User,
        count: int = 10,
        *,
        catalogue: str = "",
        filters: Mapping[str, Condition] | None = None,
        diversity: float | None = None,
        exclude_seen: bool | None = None,
        min_like_probability: float | None = None,
        exploration: float | None = None,
    ) -> Recommendation:
        """Chooses items of a catalogue for a user. Raises CatalogueNotFound, EncoderChanged, UserDeleted.

        `filters` maps keys of the metadata to what their values must pass, for instance
        {"kind": "shoe", "price": Between(high=50)}. What is None is the service's default.
        """
        call = self._calls.recommend(
            user,
            count,
            filters or {},
            catalogue=catalogue,
            diversity=diversity,
            exclude_seen=exclude_seen,
            min_like_probability=min_like_probability,
            exploration=exploration,
        )
        return await self._run(call)

    async def rank(
        self, user: str | User, item_ids: Sequence[str] = (), *, images: Sequence[bytes] = (), catalogue: str = ""
    ) -> Ranking:
        """Orders items of a catalogue, or encoded pictures, by how likely the user likes each."""
        return await self._run(self._calls.rank(user, item_ids, images, catalogue))

    async def is_serving(self, service: str = "papa.serving.v1.GenerationService", *, timeout: float = 5.0) -> bool:
        """The health of one of the gateway's services; False when nobody answers."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            response = await self._stubs.health.Check(request, timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    @property
    def _stubs(self) -> Stubs:
        """Raises WrongEventLoop."""
        if _running_loop() is not self._loop:
            raise WrongEventLoop("this AsyncClient belongs to another event loop: create one for each loop")
        return self._services

    def _stream_event(self, event: FeedbackEvent) -> Sending:
        return self._calls.streamed(event, self._limits or Limits())

    async def _known_limits(self) -> Limits:
        """The limits of the deployment, asked for once; the defaults if the gateway cannot be asked."""
        if self._limits is None:
            try:
                return (await self.server_info()).limits
            except CallFailed:
                return Limits()
        return self._limits

    async def _run(self, call: UnaryCall[Answer], timeout: float | None = None) -> Answer:
        return await self._attempt(call, Attempts(self._retry, timeout or call.timeout))

    async def _attempt(self, call: UnaryCall[Answer], attempts: Attempts) -> Answer:
        method = call.method(self._stubs)
        while True:
            try:
                response = await method(
                    call.request, timeout=attempts.remaining(), metadata=self._connection.metadata(attempts.request_id)
                )
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_after(error_of_repeatable(failure, self._closed)))
            else:
                return call.read(response)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongEventLoop("create AsyncClient inside a coroutine: it belongs to the event loop that runs") from None
