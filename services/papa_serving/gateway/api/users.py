"""UserService: reads, moves, deletes, exports and imports a user's state."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress

from google.protobuf import timestamp_pb2

from papa_serving.contracts.attribution import ActivityLog
from papa_serving.contracts.errors import InvalidRequest, RevisionNotFound, UserDeleted, Violation
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.limits import MAX_ID
from papa_serving.contracts.revisions import DeletionReceipt, Revision, RevisionStore, Usage, UserDirectory, UserState
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.rpc.edge import Context
from papa_serving.gateway.transfer import ACTIVITY, Adopter, Exporter, Merger, activity_of, pieces, sha256
from papa_serving.metrics import REVISIONS
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2, user_pb2_grpc

log = logging.getLogger(__name__)

DEFAULT_PAGE = 100
MAX_TOKEN = 4 * MAX_ID * 2 * 4 // 3 + 8
"""Characters of a token: two ids of four bytes a character, in base64."""
REMAINS = (
    "The ids of the user and of the user's events stay in the append-only file of Redis until its next rewrite, in log "
    "files until they are rotated, and in backups."
)


class UserService(user_pb2_grpc.UserServiceServicer):
    """Works on the user directory and the revision store."""

    def __init__(
        self,
        users: UserDirectory,
        revisions: RevisionStore,
        partitions: int,
        drain: Drain,
        adopter: Adopter,
        merger: Merger,
        activity: ActivityLog,
    ) -> None:
        """`partitions`: into how many the users are divided."""
        self._partitions = partitions
        self._users, self._revisions, self._drain = users, revisions, drain
        self._exporter, self._adopter, self._merger = Exporter(users, revisions), adopter, merger
        self._activity = activity

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Context) -> user_pb2.GetUserResponse:
        key = _key(request.user)
        state = await self._users.get(key)
        return user_pb2.GetUserResponse(
            state=state_to_wire(state), usage=usage_to_wire(await self._users.usage(key), state)
        )

    async def ListUsers(self, request: user_pb2.ListUsersRequest, context: Context) -> user_pb2.ListUsersResponse:
        """Goes from partition to partition. A token names the last user of a page, and so where it ended."""
        violations: list[Violation] = []
        validation.check_users_page(request, violations)
        after = user_of_token(request.page_token, violations)
        validation.refuse(violations)
        tenant = caller.get().charge_tenants(request.tenant)
        size, partition = request.page_size or DEFAULT_PAGE, 0 if after is None else after.partition(self._partitions)
        found: list[UserKey] = []
        while len(found) <= size and partition < self._partitions:
            found += await self._users.listed(partition, size + 1 - len(found), tenant, after)
            partition, after = partition + 1, None
        page = found[:size]
        return user_pb2.ListUsersResponse(
            users=[state_to_wire(state) async for state in self._existing(page)],
            next_page_token=token_of_user(page[-1]) if len(found) > size else "",
        )

    async def _existing(self, users: Sequence[UserKey]) -> AsyncIterator[UserState]:
        """The states of the users, without those who are deleted meanwhile."""
        for user in users:
            with suppress(UserDeleted):
                yield await self._users.get(user)

    async def WatchUser(
        self, request: user_pb2.WatchUserRequest, context: Context
    ) -> AsyncIterator[user_pb2.WatchUserResponse]:
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
        """The token of a page is the name of its last revision."""
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
            revisions=map(revision_to_wire, page), next_page_token=page[-1].name if len(found) > size else ""
        )

    async def RollbackAdapter(
        self, request: user_pb2.RollbackAdapterRequest, context: Context
    ) -> user_pb2.RollbackAdapterResponse:
        violations: list[Violation] = []
        validation.check_revision(request.revision, violations)
        state = await self._users.rollback(_key(request.user, violations), request.revision)
        REVISIONS.labels("rolled_back").inc()
        return user_pb2.RollbackAdapterResponse(state=state_to_wire(state))

    async def ResetUser(self, request: user_pb2.ResetUserRequest, context: Context) -> user_pb2.ResetUserResponse:
        state = await self._users.reset(_key(request.user))
        REVISIONS.labels("reset").inc()
        return user_pb2.ResetUserResponse(state=state_to_wire(state))

    async def DeleteUser(self, request: user_pb2.DeleteUserRequest, context: Context) -> user_pb2.DeleteUserResponse:
        """Sets the tombstone first and deletes the files last, so that repeating a failed deletion completes it."""
        key = _key(request.user)
        receipt = await self._users.delete(key)
        assert receipt is not None
        await self._revisions.delete_user(key)
        return receipt_to_wire(receipt)

    async def MergeUsers(self, request: user_pb2.MergeUsersRequest, context: Context) -> user_pb2.MergeUsersResponse:
        violations: list[Violation] = []
        validation.check_user(request.from_user, "from_user", violations)
        validation.check_user(request.into_user, "into_user", violations)
        validation.refuse(violations)
        guest, into = caller.get().charge(request.from_user), caller.get().charge(request.into_user)
        if guest == into or guest.tenant != into.tenant:
            raise InvalidRequest([Violation("into_user", "must be another user of the same tenant")])
        receipt = await self._merger.merge(guest, into)
        state = await self._users.get(into)
        return user_pb2.MergeUsersResponse(receipt=receipt_to_wire(receipt), state=state_to_wire(state))

    async def ExportUser(
        self, request: user_pb2.ExportUserRequest, context: Context
    ) -> AsyncIterator[user_pb2.ExportUserResponse]:
        """Sends the state, all revision records, the files of one revision, the manifests of all, then the activity."""
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
        if activity := await activity_of(self._activity, state.user):
            for chunk in _chunks(ACTIVITY, activity):
                yield user_pb2.ExportUserResponse(chunk=chunk)

    async def ImportAdapter(
        self, request: user_pb2.ImportAdapterRequest, context: Context
    ) -> user_pb2.ImportAdapterResponse:
        violations: list[Violation] = []
        validation.check_import(request, violations)
        key = _key(request.user, violations)
        files = {file.name: file.data for file in request.files}
        revision = await self._adopter.adopt(key, request.backbone, files)
        REVISIONS.labels("imported").inc()
        return user_pb2.ImportAdapterResponse(revision=revision_to_wire(revision))


def token_of_user(user: UserKey) -> str:
    """The token of a page that ends with this user."""
    return base64.urlsafe_b64encode(f"{user.tenant}\0{user.user}".encode()).decode()


def user_of_token(token: str, violations: list[Violation]) -> UserKey | None:
    """The inverse of `token_of_user`; None for "" and, with a violation, for what it does not make."""
    if not token:
        return None
    try:
        if len(token) <= MAX_TOKEN:
            tenant, name = base64.b64decode(token.encode(), b"-_", validate=True).decode().split("\0")
            return UserKey(tenant, name)
    except ValueError:  # the characters, the padding, the UTF-8 or the number of parts
        log.debug("a page token that is none")
    violations.append(Violation("page_token", "is not a token of this list"))
    return None


def _chunks(name: str, data: bytes) -> list[user_pb2.FileChunk]:
    chunks = [user_pb2.FileChunk(name=name, data=piece) for piece in pieces(data)]
    chunks[-1].sha256 = sha256(data)
    return chunks


def _key(user: types_pb2.User, violations: list[Violation] | None = None) -> UserKey:
    """Charges and returns the user that a request names. Raises its violations together with those found before."""
    violations = [] if violations is None else violations
    validation.check_user(user, "user", violations)
    validation.refuse(violations)
    return caller.get().charge(user)


def receipt_to_wire(receipt: DeletionReceipt) -> user_pb2.DeleteUserResponse:
    """The receipt of a deletion in the public contract."""
    return user_pb2.DeleteUserResponse(
        receipt_id=receipt.receipt_id,
        deleted_at=timestamp(receipt.deleted_at),
        events=receipt.events,
        dead_letters=receipt.dead_letters,
        items=receipt.items,
        revisions=receipt.revisions,
        remains=REMAINS,
    )


def state_to_wire(state: UserState) -> user_pb2.UserState:
    """The state of a user in the public contract."""
    return user_pb2.UserState(
        user=types_pb2.User(tenant=state.user.tenant, user=state.user.user),
        likes=state.likes,
        dislikes=state.dislikes,
        pending_events=state.pending,
        dead_letters=state.dead_letters,
        current_revision=None if state.current is None else revision_to_wire(state.current),
    )


def usage_to_wire(usage: Usage, state: UserState) -> user_pb2.Usage:
    """What a user has of the quotas, in the public contract."""
    return user_pb2.Usage(
        revisions=usage.revisions,
        items=usage.items,
        event_ids=usage.event_ids,
        remembered_labels=0 if state.current is None else state.current.remembered,
    )


def revision_to_wire(revision: Revision) -> user_pb2.Revision:
    """The record of a revision in the public contract."""
    return user_pb2.Revision(
        revision=revision.name,
        parent=revision.parent,
        created_at=timestamp(revision.created_at),
        events_applied=revision.events_applied,
        events_total=revision.events_total,
        sha256=revision.sha256,
    )


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Converts seconds since the epoch."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e9))
    return stamp
