"""Which scope each method needs. A method that is not in the table is refused to everybody with a credential."""

from __future__ import annotations

from collections.abc import Mapping

from papa_serving.contracts.errors import Forbidden
from papa_serving.gateway.identity import Identity, Scope

_READ = frozenset(Scope)
_GENERATE, _FEEDBACK, _ADMIN = frozenset({Scope.GENERATE}), frozenset({Scope.FEEDBACK}), frozenset({Scope.ADMIN})

SCOPES: Mapping[str, frozenset[Scope]] = {
    "GenerationService/Generate": _GENERATE,
    "GenerationService/StreamGenerate": _GENERATE,
    "FeedbackService/SubmitFeedback": _FEEDBACK,
    "FeedbackService/StreamFeedback": _FEEDBACK,
    "UserService/GetUser": _READ,
    "UserService/WatchUser": _READ,
    "UserService/ListRevisions": _READ,
    "UserService/RollbackAdapter": _ADMIN,
    "UserService/ResetUser": _ADMIN,
    "UserService/DeleteUser": _ADMIN,
    "UserService/ExportUser": _ADMIN,
    "UserService/ImportAdapter": _ADMIN,
    "DeadLetterService/ListDeadLetters": _ADMIN,
    "DeadLetterService/RetryDeadLetter": _ADMIN,
    "DeadLetterService/DropDeadLetter": _ADMIN,
}
"""By service and method; any one of the scopes will do."""


def check_scope(identity: Identity, method: str) -> None:
    """Raises Forbidden unless the credential may be used for this method."""
    accepted = SCOPES.get(method, frozenset())
    if identity.bound and not accepted & identity.scopes:
        names = " or ".join(sorted(accepted)) or "that nobody has"
        raise Forbidden(f"the credential lacks a scope for this method: {names}")
