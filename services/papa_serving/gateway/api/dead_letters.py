"""DeadLetterService: lists, retries and drops dead letters."""

# ruff: noqa: N802 - the protos name the methods

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.contracts.feedback import DeadLetter, FeedbackLog
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.api.users import timestamp
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.edge import Context
from papa_serving.stubs.serving.v1 import dead_letter_pb2, dead_letter_pb2_grpc, types_pb2

DEFAULT_PAGE = 100
CHUNK = 500
MOST_CHUNKS = 20
"""One page scans CHUNK × MOST_CHUNKS letters at most; the next page continues there."""

_LETTER_ID = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)
_PAGE_TOKEN = re.compile(r"(\d{1,4})\.((?:\d{1,19}-\d{1,19})?)", re.ASCII)

RetryOrDrop = dead_letter_pb2.RetryDeadLetterRequest | dead_letter_pb2.DropDeadLetterRequest


@dataclass(frozen=True)
class Wanted:
    """The tenant and user whose letters are listed; None means any."""

    tenant: str | None
    user: str | None

    def has(self, key: UserKey) -> bool:
        """Whether letters of this user are listed."""
        return self.tenant in (None, key.tenant) and self.user in (None, key.user)


class DeadLetterService(dead_letter_pb2_grpc.DeadLetterServiceServicer):
    """Works on the dead-letter streams of all partitions. A letter id is unique within its partition."""

    def __init__(self, log: FeedbackLog) -> None:
        self._log = log

    async def ListDeadLetters(
        self, request: dead_letter_pb2.ListDeadLettersRequest, context: Context
    ) -> dead_letter_pb2.ListDeadLettersResponse:
        """Scans partition by partition; the token of a page says where it stopped."""
        wanted, size = _wanted(request), request.page_size or DEFAULT_PAGE
        partition, after = self._begin(request.page_token, wanted)
        last = partition if wanted.tenant is not None and wanted.user is not None else self._log.partitions - 1
        page: list[DeadLetter] = []
        for _ in range(MOST_CHUNKS):
            found = await self._log.dead_letters(partition, CHUNK, after)
            for letter in found:
                after = letter.letter_id
                page += [letter] if wanted.has(letter.event.user) else []
                if len(page) == size:
                    return _page(page, f"{partition}.{after}")
            if len(found) < CHUNK:
                if partition >= last:
                    return _page(page, "")
                partition, after = partition + 1, ""
        return _page(page, f"{partition}.{after}")

    async def RetryDeadLetter(
        self, request: dead_letter_pb2.RetryDeadLetterRequest, context: Context
    ) -> dead_letter_pb2.RetryDeadLetterResponse:
        """Retries with the sample that the letter holds, so that an expired item does not matter."""
        found = await self._with(request, self._log.retry_dead_letter)
        return dead_letter_pb2.RetryDeadLetterResponse(found=found)

    async def DropDeadLetter(
        self, request: dead_letter_pb2.DropDeadLetterRequest, context: Context
    ) -> dead_letter_pb2.DropDeadLetterResponse:
        """Drops the event; its id stays known, so that a retry of the caller does not bring it back."""
        found = await self._with(request, self._log.drop_dead_letter)
        return dead_letter_pb2.DropDeadLetterResponse(found=found)

    def _begin(self, token: str, wanted: Wanted) -> tuple[int, str]:
        if not token:
            key = None if wanted.tenant is None or wanted.user is None else UserKey(wanted.tenant, wanted.user)
            return (0 if key is None else key.partition(self._log.partitions)), ""
        parts = _PAGE_TOKEN.fullmatch(token)
        if parts is None or int(parts[1]) >= self._log.partitions:
            raise InvalidRequest([Violation("page_token", "is not a token of this list")])
        return int(parts[1]), parts[2]

    async def _with(self, request: RetryOrDrop, act: Callable[[DeadLetter], Awaitable[bool]]) -> bool:
        violations: list[Violation] = []
        validation.check_user(request.user, "user", violations)
        if not _LETTER_ID.fullmatch(request.letter_id):
            violations.append(Violation("letter_id", "is not the id of a dead letter"))
        validation.refuse(violations)
        key = caller.get().charge(request.user)
        letter = await self._log.dead_letter(key.partition(self._log.partitions), request.letter_id)
        return letter is not None and letter.event.user == key and await act(letter)


def _wanted(request: dead_letter_pb2.ListDeadLettersRequest) -> Wanted:
    """Raises InvalidRequest; Forbidden for a tenant or user that the credential does not reach."""
    identity, violations = caller.get().identity, list[Violation]()
    if request.page_size > validation.MAX_PAGE:
        violations.append(Violation("page_size", f"must be at most {validation.MAX_PAGE}"))
    if request.user.user:
        validation.check_user(request.user, "user", violations)
    validation.refuse(violations)
    if request.user.user:
        key = caller.get().charge(request.user)
        return Wanted(key.tenant, key.user)
    tenant = identity.reach_tenant(request.user)
    if identity.user:
        caller.get().charge(types_pb2.User(tenant=tenant, user=identity.user))
        return Wanted(tenant, identity.user)
    caller.get().charge_tenant(tenant)
    return Wanted(tenant if identity.bound or request.HasField("user") else None, None)


def _page(letters: list[DeadLetter], token: str) -> dead_letter_pb2.ListDeadLettersResponse:
    return dead_letter_pb2.ListDeadLettersResponse(dead_letters=map(_letter, letters), next_page_token=token)


def _letter(letter: DeadLetter) -> dead_letter_pb2.DeadLetter:
    event = letter.event
    return dead_letter_pb2.DeadLetter(
        letter_id=letter.letter_id,
        user=types_pb2.User(tenant=event.user.tenant, user=event.user.user),
        event_id=event.event_id,
        sequence=event.sequence,
        grade=event.grade,
        revision=event.revision,
        accepted_at=timestamp(event.accepted_at),
        died_at=timestamp(letter.at),
        attempts=event.attempts,
        reason=letter.reason,
    )
