"""UserService: what is known of a user, and what its owner may do with it."""

# ruff: noqa: N802 - the protos name the methods

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from google.protobuf import timestamp_pb2

from services.contracts.errors import InvalidRequest, RevisionNotFound, Violation
from services.contracts.identity import UserKey
from services.contracts.revisions import Revision, RevisionStore, UserDirectory, UserState
from services.gateway import validation
from services.gateway.drain import Drain
from services.gateway.edge import Context
from services.gateway.identity import caller
from services.stubs.serving.v1 import types_pb2, user_pb2, user_pb2_grpc

DEFAULT_PAGE = 100


class UserService(user_pb2_grpc.UserServiceServicer):
    """Reads and moves user state; the files of revisions are touched by a deletion only."""

    def __init__(self, users: UserDirectory, revisions: RevisionStore, drain: Drain) -> None:
        self._users, self._revisions, self._drain = users, revisions, drain

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Context) -> user_pb2.GetUserResponse:
        """The state now."""
        return user_pb2.GetUserResponse(state=_state(await self._users.get(_key(request.user))))

    async def WatchUser(
        self, request: user_pb2.WatchUserRequest, context: Context
    ) -> AsyncIterator[user_pb2.WatchUserResponse]:
        """The state now, then each change."""
        states = self._users.watch(_key(request.user))
        try:
            while True:
                async with self._drain.endless_wait():
                    state = await anext(states, None)
                if state is None:
                    return
                yield user_pb2.WatchUserResponse(state=_state(state))
        finally:
            if isinstance(states, AsyncGenerator):
                await states.aclose()

    async def ListRevisions(
        self, request: user_pb2.ListRevisionsRequest, context: Context
    ) -> user_pb2.ListRevisionsResponse:
        """A page's token is the name of its last revision."""
        violations: list[Violation] = []
        validation.check_page(request, violations)
        key = _key(request.user, violations)
        size = request.page_size or DEFAULT_PAGE
        try:
            found = await self._users.lineage(key, size + 1, request.page_token)
        except RevisionNotFound as error:
            raise InvalidRequest([Violation("page_token", "is not a token of this user")]) from error
        page = found[:size]
        return user_pb2.ListRevisionsResponse(
            revisions=map(_revision, page), next_page_token=page[-1].revision if len(found) > size else ""
        )

    async def RollbackAdapter(
        self, request: user_pb2.RollbackAdapterRequest, context: Context
    ) -> user_pb2.RollbackAdapterResponse:
        """Points at an earlier revision."""
        violations: list[Violation] = []
        validation.check_revision(request.revision, violations)
        state = await self._users.rollback(_key(request.user, violations), request.revision)
        return user_pb2.RollbackAdapterResponse(state=_state(state))

    async def ResetUser(self, request: user_pb2.ResetUserRequest, context: Context) -> user_pb2.ResetUserResponse:
        """Points at the base."""
        return user_pb2.ResetUserResponse(state=_state(await self._users.reset(_key(request.user))))

    async def DeleteUser(self, request: user_pb2.DeleteUserRequest, context: Context) -> user_pb2.DeleteUserResponse:
        """The tombstone first, the files last: a deletion that fails half way is completed by repeating it."""
        key = _key(request.user)
        receipt = await self._users.delete(key)
        await self._revisions.delete_user(key)
        return user_pb2.DeleteUserResponse(
            receipt_id=receipt.receipt_id,
            deleted_at=_timestamp(receipt.deleted_at),
            events=receipt.events,
            dead_letters=receipt.dead_letters,
            items=receipt.items,
            revisions=receipt.revisions,
        )


def _key(user: types_pb2.User, violations: list[Violation] | None = None) -> UserKey:
    """The user that a request means; raises what is wrong with it, together with the `violations` found before."""
    violations = [] if violations is None else violations
    validation.check_user(user, "user", violations)
    validation.refuse(violations)
    return caller.get().key(user)


def _state(state: UserState) -> user_pb2.UserState:
    return user_pb2.UserState(
        user=types_pb2.User(tenant=state.user.tenant, user=state.user.user),
        likes=state.likes,
        dislikes=state.dislikes,
        pending_events=state.pending,
        dead_letters=state.dead_letters,
        current_revision=None if state.current is None else _revision(state.current),
    )


def _revision(revision: Revision) -> user_pb2.Revision:
    return user_pb2.Revision(
        revision=revision.revision,
        parent=revision.parent,
        created_at=_timestamp(revision.created_at),
        events_applied=revision.events_applied,
        events_total=revision.events_total,
        sha256=revision.sha256,
    )


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromNanoseconds(round(seconds * 1e9))
    return timestamp
