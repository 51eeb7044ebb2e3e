"""UserService: what is known of a user, and what its owner may do with it."""

# ruff: noqa: N802 - the protos name the methods

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from papa_serving.contracts.errors import InvalidRequest, RevisionNotFound, Violation
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.gateway import validation
from papa_serving.gateway.adoption import Adopter
from papa_serving.gateway.drain import Drain
from papa_serving.gateway.edge import Context
from papa_serving.gateway.export import Exporter, pieces, sha256
from papa_serving.gateway.identity import caller
from papa_serving.gateway.user_wire import revision_to_wire, state_to_wire, timestamp
from papa_serving.metrics import REVISIONS
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2, user_pb2_grpc

DEFAULT_PAGE = 100


class UserService(user_pb2_grpc.UserServiceServicer):
    """Reads and moves user state."""

    def __init__(self, users: UserDirectory, revisions: RevisionStore, drain: Drain, adopter: Adopter) -> None:
        self._users, self._revisions, self._drain = users, revisions, drain
        self._exporter, self._adopter = Exporter(users, revisions), adopter

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Context) -> user_pb2.GetUserResponse:
        """The state now."""
        return user_pb2.GetUserResponse(state=state_to_wire(await self._users.get(_key(request.user))))

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
                yield user_pb2.WatchUserResponse(state=state_to_wire(state))
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
            revisions=map(revision_to_wire, page), next_page_token=page[-1].revision if len(found) > size else ""
        )

    async def RollbackAdapter(
        self, request: user_pb2.RollbackAdapterRequest, context: Context
    ) -> user_pb2.RollbackAdapterResponse:
        """Points at an earlier revision."""
        violations: list[Violation] = []
        validation.check_revision(request.revision, violations)
        state = await self._users.rollback(_key(request.user, violations), request.revision)
        REVISIONS.labels("rolled_back").inc()
        return user_pb2.RollbackAdapterResponse(state=state_to_wire(state))

    async def ResetUser(self, request: user_pb2.ResetUserRequest, context: Context) -> user_pb2.ResetUserResponse:
        """Points at the base."""
        state = await self._users.reset(_key(request.user))
        REVISIONS.labels("reset").inc()
        return user_pb2.ResetUserResponse(state=state_to_wire(state))

    async def DeleteUser(self, request: user_pb2.DeleteUserRequest, context: Context) -> user_pb2.DeleteUserResponse:
        """The tombstone first, the files last: a deletion that fails half way is completed by repeating it."""
        key = _key(request.user)
        receipt = await self._users.delete(key)
        await self._revisions.delete_user(key)
        return user_pb2.DeleteUserResponse(
            receipt_id=receipt.receipt_id,
            deleted_at=timestamp(receipt.deleted_at),
            events=receipt.events,
            dead_letters=receipt.dead_letters,
            items=receipt.items,
            revisions=receipt.revisions,
        )

    async def ExportUser(
        self, request: user_pb2.ExportUserRequest, context: Context
    ) -> AsyncIterator[user_pb2.ExportUserResponse]:
        """State, revisions, the files of one revision, then the manifests of all."""
        violations: list[Violation] = []
        if request.revision:
            validation.check_revision(request.revision, violations)
        state = await self._users.get(_key(request.user, violations))
        chosen = await self._exporter.chosen(state, request.revision)
        yield user_pb2.ExportUserResponse(state=state_to_wire(state))
        async for revision in self._exporter.lineage(state.user):
            yield user_pb2.ExportUserResponse(revision=revision_to_wire(revision))
        if chosen is not None:
            async for name, data in self._exporter.files(state.user, chosen):
                for chunk in _chunks(name, data):
                    yield user_pb2.ExportUserResponse(chunk=chunk)
        async for name, data in self._exporter.history(state.user):
            for chunk in _chunks(name, data):
                yield user_pb2.ExportUserResponse(chunk=chunk)

    async def ImportAdapter(
        self, request: user_pb2.ImportAdapterRequest, context: Context
    ) -> user_pb2.ImportAdapterResponse:
        """What arrived whole is checked by the engine and committed."""
        violations: list[Violation] = []
        validation.check_import(request, violations)
        key = _key(request.user, violations)
        files = {file.name: file.data for file in request.files}
        revision = await self._adopter.adopt(key, request.backbone, files)
        REVISIONS.labels("imported").inc()
        return user_pb2.ImportAdapterResponse(revision=revision_to_wire(revision))


def _chunks(name: str, data: bytes) -> list[user_pb2.FileChunk]:
    chunks = [user_pb2.FileChunk(name=name, data=piece) for piece in pieces(data)]
    chunks[-1].sha256 = sha256(data)
    return chunks


def _key(user: types_pb2.User, violations: list[Violation] | None = None) -> UserKey:
    """The user that a request means; raises what is wrong with it, together with the `violations` found before."""
    violations = [] if violations is None else violations
    validation.check_user(user, "user", violations)
    validation.refuse(violations)
    return caller.get().key(user)
