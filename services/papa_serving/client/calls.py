"""The request of each unary method and the decoding of its answer, shared by both clients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_type_hints

from grpc_health.v1 import health_pb2_grpc

from papa_serving.client import catalogue_wire, experiment_wire, recommend_wire, wire
from papa_serving.client.batches import without_excess
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
    Ranking,
    Recommendation,
    Revision,
    ServerInfo,
    User,
    UserState,
)
from papa_serving.client.retry import Timeouts
from papa_serving.client.transfer import import_request
from papa_serving.client.window import Sending
from papa_serving.contracts.errors import DeadlineExceeded, InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    dead_letter_pb2,
    dead_letter_pb2_grpc,
    experiment_pb2,
    experiment_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    info_pb2,
    info_pb2_grpc,
    recommend_pb2_grpc,
    types_pb2,
    user_pb2,
    user_pb2_grpc,
)

Answer = TypeVar("Answer")
Method = TypeVar("Method", bound=Callable[..., object])


def names_options(method: Method) -> Method:
    """Gives a method that takes **options the signature that names each option of a generation.

    `help()`, editors and the reference then show them all. A misspelt option still reaches the method, whose error
    names the nearest one.
    """
    signature = inspect.signature(method)
    named = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind | None)
        for name, kind in get_type_hints(GenerateOptions).items()
    ]
    method.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return method


class Stubs:
    """The stubs of all services over one channel, blocking or asyncio."""

    def __init__(self, channel: Any) -> None:
        self.generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        self.feedback: Any = feedback_pb2_grpc.FeedbackServiceStub(channel)
        self.users: Any = user_pb2_grpc.UserServiceStub(channel)
        self.catalogue: Any = catalogue_pb2_grpc.CatalogueServiceStub(channel)
        self.recommend: Any = recommend_pb2_grpc.RecommendServiceStub(channel)
        self.experiments: Any = experiment_pb2_grpc.ExperimentServiceStub(channel)
        self.dead_letters: Any = dead_letter_pb2_grpc.DeadLetterServiceStub(channel)
        self.info: Any = info_pb2_grpc.InfoServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@dataclass(frozen=True)
class UnaryCall(Generic[Answer]):
    """One call: `method` of the stubs with `request` and `timeout` in seconds. `read` decodes the answer."""

    method: Callable[[Stubs], Any]
    request: object
    read: Callable[[Any], Answer]
    timeout: float


class Calls:
    """Builds calls for the users of `tenant`."""

    def __init__(self, tenant: str, timeouts: Timeouts) -> None:
        self._tenant, self._timeouts = tenant, timeouts

    def user(self, user: str | User) -> types_pb2.User:
        """A plain string is a user of the client's tenant."""
        return wire.user_message(user, self._tenant)

    def event(self, event: FeedbackEvent) -> feedback_pb2.FeedbackEvent:
        """Raises InvalidRequest for an event that cannot be sent."""
        return wire.event_message(event, self._tenant)

    def generate(self, user: str | User, count: int, options: GenerateOptions) -> UnaryCall[Generation]:
        """GenerationService.Generate."""
        request = self.generate_request(user, count, options)
        return UnaryCall(lambda stubs: stubs.generation.Generate, request, wire.generation, self._timeouts.generate)

    def generate_request(
        self, user: str | User, count: int, options: GenerateOptions
    ) -> generation_pb2.GenerateRequest:
        """One request of GenerationService.GenerateMany."""
        return wire.generate_request(generation_pb2.GenerateRequest, self.user(user), count, options)

    def stream_generate(
        self, user: str | User, count: int, options: GenerateOptions
    ) -> generation_pb2.StreamGenerateRequest:
        """The request of GenerationService.StreamGenerate."""
        return wire.generate_request(generation_pb2.StreamGenerateRequest, self.user(user), count, options)

    def get_item(self, user: str | User, item_id: str, image: ImageOptions | None) -> UnaryCall[ItemRecord]:
        """GenerationService.GetItem."""
        request = wire.get_item_request(self.user(user), item_id, image)
        return UnaryCall(lambda stubs: stubs.generation.GetItem, request, wire.item_record, self._timeouts.user)

    def events(self, events: Sequence[FeedbackEvent]) -> list[feedback_pb2.FeedbackEvent]:
        """Like `event`, for several events; all violations are named at once."""
        messages, violations = [], []
        for index, event in enumerate(events):
            try:
                messages.append(self.event(event))
            except InvalidRequest as refused:
                violations += [
                    Violation(f"events[{index}].{each.field}", each.description) for each in refused.violations
                ]
        if violations:
            raise InvalidRequest(violations)
        return messages

    def streamed(self, event: FeedbackEvent, limits: Limits) -> Sending:
        """The event as a stream sends it. One that cannot be sent is refused in its turn; the stream goes on."""
        try:
            return Sending(event.event_id, without_excess(self.event(event), limits))
        except InvalidRequest as refused:
            return Sending(event.event_id, feedback_pb2.FeedbackEvent(), refused)

    def submit_feedback(self, events: Sequence[feedback_pb2.FeedbackEvent]) -> UnaryCall[list[Outcome]]:
        """FeedbackService.SubmitFeedback."""
        request = feedback_pb2.SubmitFeedbackRequest(events=events)
        return UnaryCall(
            lambda stubs: stubs.feedback.SubmitFeedback,
            request,
            lambda response: [wire.outcome(each) for each in response.outcomes],
            self._timeouts.feedback,
        )

    def server_info(self) -> UnaryCall[ServerInfo]:
        """InfoService.GetServerInfo."""
        request = info_pb2.GetServerInfoRequest()
        return UnaryCall(lambda stubs: stubs.info.GetServerInfo, request, wire.server_info, self._timeouts.user)

    def get_user(self, user: str | User) -> UnaryCall[UserState]:
        """UserService.GetUser."""
        request = user_pb2.GetUserRequest(user=self.user(user))
        return UnaryCall(lambda stubs: stubs.users.GetUser, request, wire.user_with_usage, self._timeouts.user)

    def list_users(self, tenant: str, page_size: int, token: str) -> UnaryCall[tuple[list[UserState], str]]:
        """UserService.ListUsers: one page and the token of the next one; "" after the last page."""
        request = wire.list_users_request(tenant or self._tenant, page_size, token)
        return UnaryCall(
            lambda stubs: stubs.users.ListUsers,
            request,
            lambda response: ([wire.user_state(each) for each in response.users], response.next_page_token),
            self._timeouts.user,
        )

    def watch_user(self, user: str | User) -> user_pb2.WatchUserRequest:
        """The request of UserService.WatchUser."""
        return user_pb2.WatchUserRequest(user=self.user(user))

    def list_revisions(self, user: str | User, page_size: int, token: str) -> UnaryCall[tuple[list[Revision], str]]:
        """UserService.ListRevisions: one page and the token of the next one; "" after the last page."""
        request = wire.request(user_pb2.ListRevisionsRequest, self.user(user), page_size=page_size, page_token=token)
        return UnaryCall(
            lambda stubs: stubs.users.ListRevisions,
            request,
            lambda response: ([wire.revision(each) for each in response.revisions], response.next_page_token),
            self._timeouts.user,
        )

    def rollback(self, user: str | User, revision: str) -> UnaryCall[UserState]:
        """UserService.RollbackAdapter."""
        request = wire.request(user_pb2.RollbackAdapterRequest, self.user(user), revision=revision)
        return self._of_state(lambda stubs: stubs.users.RollbackAdapter, request)

    def reset(self, user: str | User) -> UnaryCall[UserState]:
        """UserService.ResetUser."""
        return self._of_state(lambda stubs: stubs.users.ResetUser, user_pb2.ResetUserRequest(user=self.user(user)))

    def delete_user(self, user: str | User) -> UnaryCall[DeletionReceipt]:
        """UserService.DeleteUser."""
        request = user_pb2.DeleteUserRequest(user=self.user(user))
        return UnaryCall(lambda stubs: stubs.users.DeleteUser, request, wire.receipt, self._timeouts.user)

    def merge_users(self, guest: str | User, into: str | User) -> UnaryCall[DeletionReceipt]:
        """UserService.MergeUsers."""
        request = user_pb2.MergeUsersRequest(from_user=self.user(guest), into_user=self.user(into))
        return UnaryCall(
            lambda stubs: stubs.users.MergeUsers,
            request,
            lambda response: wire.receipt(response.receipt),
            self._timeouts.transfer,
        )

    def export_user(self, user: str | User, revision: str) -> user_pb2.ExportUserRequest:
        """The request of UserService.ExportUser."""
        return wire.request(user_pb2.ExportUserRequest, self.user(user), revision=revision)

    def import_adapter(self, user: str | User, files: Mapping[str, bytes], backbone_hash: str) -> UnaryCall[Revision]:
        """UserService.ImportAdapter. Raises InvalidRequest when no backbone is named."""
        request = import_request(self.user(user), files, backbone_hash)
        return UnaryCall(
            lambda stubs: stubs.users.ImportAdapter,
            request,
            lambda response: wire.revision(response.revision),
            self._timeouts.transfer,
        )

    def dead_letters(
        self, user: str | User | None, page_size: int, token: str
    ) -> UnaryCall[tuple[list[DeadLetter], str]]:
        """DeadLetterService.ListDeadLetters: one page and the token of the next one; "" after the last page."""
        whose = types_pb2.User() if user is None else self.user(user)
        request = wire.request(dead_letter_pb2.ListDeadLettersRequest, whose, page_size=page_size, page_token=token)
        if user is None:
            request.ClearField("user")
        return UnaryCall(
            lambda stubs: stubs.dead_letters.ListDeadLetters,
            request,
            lambda response: ([wire.dead_letter(each) for each in response.dead_letters], response.next_page_token),
            self._timeouts.user,
        )

    def retry_dead_letter(self, user: str | User, letter_id: str) -> UnaryCall[bool]:
        """DeadLetterService.RetryDeadLetter."""
        request = wire.request(dead_letter_pb2.RetryDeadLetterRequest, self.user(user), letter_id=letter_id)
        return UnaryCall(
            lambda stubs: stubs.dead_letters.RetryDeadLetter,
            request,
            lambda response: bool(response.found),
            self._timeouts.user,
        )

    def drop_dead_letter(self, user: str | User, letter_id: str) -> UnaryCall[bool]:
        """DeadLetterService.DropDeadLetter."""
        request = wire.request(dead_letter_pb2.DropDeadLetterRequest, self.user(user), letter_id=letter_id)
        return UnaryCall(
            lambda stubs: stubs.dead_letters.DropDeadLetter,
            request,
            lambda response: bool(response.found),
            self._timeouts.user,
        )

    def put_catalogue_items(self, items: Sequence[NewItem], catalogue: str) -> list[catalogue_pb2.PutItemsRequest]:
        """The requests of CatalogueService.PutItems. Raises InvalidRequest for items that cannot be sent."""
        return catalogue_wire.put_requests(items, self._catalogue(catalogue))

    def delete_catalogue_items(self, item_ids: Sequence[str], catalogue: str) -> UnaryCall[int]:
        """CatalogueService.DeleteItems."""
        request = catalogue_pb2.DeleteItemsRequest(catalogue=self._catalogue(catalogue), item_ids=item_ids)
        return UnaryCall(
            lambda stubs: stubs.catalogue.DeleteItems,
            request,
            lambda response: int(response.deleted),
            self._timeouts.user,
        )

    def get_catalogue_item(self, item_id: str, catalogue: str) -> UnaryCall[CatalogueItem]:
        """CatalogueService.GetItem."""
        request = catalogue_pb2.CatalogueServiceGetItemRequest(catalogue=self._catalogue(catalogue), item_id=item_id)
        return UnaryCall(
            lambda stubs: stubs.catalogue.GetItem,
            request,
            lambda response: catalogue_wire.item(response.item),
            self._timeouts.user,
        )

    def list_catalogue_items(
        self, catalogue: str, page_size: int, token: str
    ) -> UnaryCall[tuple[list[CatalogueItem], str]]:
        """CatalogueService.ListItems: one page and the token of the next one; "" after the last page."""
        request = catalogue_pb2.ListItemsRequest(
            catalogue=self._catalogue(catalogue), page_size=page_size, page_token=token
        )
        return UnaryCall(
            lambda stubs: stubs.catalogue.ListItems,
            request,
            lambda response: ([catalogue_wire.item(each) for each in response.items], response.next_page_token),
            self._timeouts.user,
        )

    def catalogues(self) -> UnaryCall[CatalogueList]:
        """CatalogueService.ListCatalogues."""
        request = catalogue_pb2.ListCataloguesRequest(tenant=self._tenant)
        return UnaryCall(
            lambda stubs: stubs.catalogue.ListCatalogues, request, catalogue_wire.catalogues, self._timeouts.user
        )

    def recommend(
        self, user: str | User, count: int, filters: Mapping[str, Condition], **fields: object
    ) -> UnaryCall[Recommendation]:
        """RecommendService.Recommend."""
        request = recommend_wire.recommend_request(self.user(user), count, filters, **fields)
        return UnaryCall(
            lambda stubs: stubs.recommend.Recommend, request, recommend_wire.recommendation, self._timeouts.user
        )

    def rank(
        self, user: str | User, item_ids: Sequence[str], images: Sequence[bytes], catalogue: str
    ) -> UnaryCall[Ranking]:
        """RecommendService.Rank."""
        request = recommend_wire.rank_request(self.user(user), item_ids, images, catalogue)
        return UnaryCall(lambda stubs: stubs.recommend.Rank, request, recommend_wire.ranking, self._timeouts.generate)

    def experiments(self, tenant: str) -> UnaryCall[list[ExperimentReport]]:
        """ExperimentService.GetReport."""
        request = experiment_pb2.GetReportRequest(tenant=tenant or self._tenant)
        return UnaryCall(
            lambda stubs: stubs.experiments.GetReport, request, experiment_wire.reports, self._timeouts.user
        )

    def _catalogue(self, name: str) -> catalogue_pb2.Catalogue:
        return catalogue_wire.catalogue_message(name, self._tenant)

    def _of_state(self, method: Callable[[Stubs], Any], request: object) -> UnaryCall[UserState]:
        return UnaryCall(method, request, lambda response: wire.user_state(response.state), self._timeouts.user)


@dataclass(frozen=True)
class RevisionAwaited:
    """A revision newer than `after`; with `settled` also no pending event. Revision names sort by age."""

    after: str
    settled: bool

    def found_in(self, state: UserState) -> Revision | None:
        """The current revision, once the wait is over."""
        current = state.current_revision
        if current is None or current.name <= self.after or (self.settled and state.pending_events):
            return None
        return current

    def missed(self, user: str | User, state: UserState | None, late: DeadlineExceeded) -> DeadlineExceeded:
        """The error that names the state waited for and the state seen last."""
        name = user if isinstance(user, str) else user.user
        wanted = f"revision newer than {self.after}" if self.after else "revision"
        settled = " with no event pending" if self.settled else ""
        if state is None:
            seen = "the service said nothing of this user"
        else:
            current = state.current_revision.name if state.current_revision else "none"
            seen = (
                f"the current revision is {current}, {state.pending_events} events are pending, "
                f"{state.dead_letters} are dead letters"
            )
        return DeadlineExceeded(f"{name} had no {wanted}{settled} in time: {seen}", metadata=late.metadata)
