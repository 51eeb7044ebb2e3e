"""Every error that a caller can meet. Each class carries its status; the gateway's one handler puts it on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """The gRPC status codes in use (numbers as in google.rpc.Code)."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True)
class Violation:
    """One bad field: `field` is its path in the request ("events[3].grade"), `description` says what to change."""

    field: str
    description: str


class PapaError(Exception):
    """Base of all typed errors.

    `reason` is stable and machine-readable (google.rpc.ErrorInfo.reason), `message` is for people and says what to
    change, `retry_after` is in seconds where trying again can help, `metadata` goes into ErrorInfo.
    """

    status: Status = Status.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    @property
    def request_id(self) -> str:
        """The id that finds the call in the service's logs; "" where no call was made."""
        return self.metadata.get("request_id", "")


class InvalidRequest(PapaError):
    """The request itself is at fault; all violations are named at once."""

    status, reason = Status.INVALID_ARGUMENT, "INVALID_REQUEST"

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), field=violations[0].field)
        self.violations = tuple(violations)


class ItemNotFound(PapaError):
    """The user has no such item: it was never made, was made for somebody else, or its time to live has passed."""

    status, reason = Status.NOT_FOUND, "ITEM_NOT_FOUND"


class CatalogueUnsupported(PapaError):
    """The Redis of the catalogues has no vector sets: it is older than version 8, or another kind of server."""

    status, reason = Status.FAILED_PRECONDITION, "CATALOGUE_UNSUPPORTED"


class CatalogueNotFound(PapaError):
    """The tenant has no catalogue of this name, or it holds no item."""

    status, reason = Status.NOT_FOUND, "CATALOGUE_NOT_FOUND"


class EncoderChanged(PapaError):
    """The embedding was made by another encoder than those of the catalogue, with which it cannot be compared."""

    status, reason = Status.FAILED_PRECONDITION, "ENCODER_CHANGED"


class CatalogueFull(PapaError):
    """The catalogue, or the tenant's list of catalogues, holds as many as it may."""

    status, reason = Status.RESOURCE_EXHAUSTED, "CATALOGUE_FULL"


class RevisionNotFound(PapaError):
    """The user has no such revision."""

    status, reason = Status.NOT_FOUND, "REVISION_NOT_FOUND"


class RevisionDamaged(PapaError):
    """The stored revision fails its checks (sha256, shapes, finiteness, backbone) and is not served."""

    status, reason = Status.FAILED_PRECONDITION, "REVISION_DAMAGED"


class UserDeleted(PapaError):
    """The user was deleted and the tombstone has not expired."""

    status, reason = Status.FAILED_PRECONDITION, "USER_DELETED"


class EventIdReused(PapaError):
    """The event_id was accepted before with another target or label."""

    status, reason = Status.INVALID_ARGUMENT, "EVENT_ID_REUSED"


class EventNotFound(PapaError):
    """The event to take back is unknown: it was never accepted from this user, or too long ago."""

    status, reason = Status.NOT_FOUND, "EVENT_NOT_FOUND"


class BacklogFull(PapaError):
    """The user's partition holds as many unapplied events as it may."""

    status, reason = Status.RESOURCE_EXHAUSTED, "BACKLOG_FULL"


class UserBacklogFull(PapaError):
    """The user has as many unapplied events as are left for all the other users of the partition.

    It is also raised when so many events were taken back since the oldest unapplied one that no further event id can be
    remembered.
    """

    status, reason = Status.RESOURCE_EXHAUSTED, "USER_BACKLOG_FULL"


class QueueFull(PapaError):
    """The engine's queue is full."""

    status, reason = Status.RESOURCE_EXHAUSTED, "QUEUE_FULL"


class RateLimited(PapaError):
    """The caller exceeds a rate limit; `subject` names whose limit ("tenant:…", "user:…")."""

    status, reason = Status.RESOURCE_EXHAUSTED, "RATE_LIMITED"

    @property
    def subject(self) -> str:
        """The user or tenant that the limit applies to, from the metadata."""
        return self.metadata.get("subject", "")


class Overloaded(PapaError):
    """The gateway handles as many calls at once as it may."""

    status, reason = Status.RESOURCE_EXHAUSTED, "OVERLOADED"


class RequestLate(PapaError):
    """The call was opened, but its first message did not arrive in time."""

    status, reason = Status.RESOURCE_EXHAUSTED, "REQUEST_LATE"


class Unauthenticated(PapaError):
    """The call has no credential, or one that cannot be verified."""

    status, reason = Status.UNAUTHENTICATED, "UNAUTHENTICATED"


class CredentialExpired(PapaError):
    """The credential of a stream expired while it ran; connect again with a fresh one."""

    status, reason = Status.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"


class Forbidden(PapaError):
    """The credential does not reach this tenant, user or method."""

    status, reason = Status.PERMISSION_DENIED, "FORBIDDEN"


class KeysUnavailable(PapaError):
    """The keys that verify tokens are not available at the moment, so no caller can be admitted."""

    status, reason = Status.UNAVAILABLE, "KEYS_UNAVAILABLE"


class StorageUnavailable(PapaError):
    """Redis or the object store does not answer, or refuses writes."""

    status, reason = Status.UNAVAILABLE, "STORAGE_UNAVAILABLE"


class StorageDamaged(StorageUnavailable):
    """Redis answers what cannot be understood: a damaged record, another program's data, or no Redis at all."""

    status, reason = Status.DATA_LOSS, "STORAGE_DAMAGED"


class GeneratorUnavailable(PapaError):
    """No generator replica answers."""

    status, reason = Status.UNAVAILABLE, "GENERATOR_UNAVAILABLE"


class ShuttingDown(PapaError):
    """This gateway is shutting down; a retry reaches another one."""

    status, reason = Status.UNAVAILABLE, "SHUTTING_DOWN"


class StoreAhead(PapaError):
    """The revision store holds later revisions of the user than Redis knows: Redis was emptied or set back. Never
    reaches a caller."""

    status, reason = Status.FAILED_PRECONDITION, "STORE_AHEAD"


class DeadlineExceeded(PapaError):
    """The caller's deadline passed before the work was done."""

    status, reason = Status.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"


class Fenced(PapaError):
    """Another owner holds the partition now: the epoch of this lease is over. Never reaches a caller."""

    status, reason = Status.ABORTED, "FENCED"


class LineageConflict(PapaError):
    """The pointer no longer names the expected parent. Never reaches a caller of feedback."""

    status, reason = Status.ABORTED, "LINEAGE_CONFLICT"


def error_from_reason(
    reason: str, message: str, retry_after: float | None = None, metadata: Mapping[str, str] | None = None
) -> PapaError:
    """Rebuilds an error that travelled by its reason; an unknown reason gives the base class."""
    # The most general of those that share a reason.
    kinds = {kind.reason: kind for kind in reversed(_below(PapaError)) if kind is not InvalidRequest}
    return kinds.get(reason, PapaError)(message, retry_after=retry_after, metadata=metadata)


def _below(kind: type[PapaError]) -> list[type[PapaError]]:
    return [each for direct in kind.__subclasses__() for each in (direct, *_below(direct))]
