"""What a person may do about an error of the service, by its reason."""

from __future__ import annotations

from papa_serving.contracts.errors import PapaError

HINTS = {
    "CALL_FAILED": "does a service run there? papa up starts one, --address names another",
    "UNAUTHENTICATED": "the settings client.token and client.token_file say who you are",
    "CREDENTIAL_EXPIRED": "the settings client.token and client.token_file say who you are",
    "FORBIDDEN": "another token is needed: see client.token",
    "ITEM_NOT_FOUND": "papa generate prints items that may be rated",
    "REVISION_NOT_FOUND": "papa adapters list prints them",
    "GENERATOR_UNAVAILABLE": "papa health says what serves; the service's log says more",
    "STORAGE_UNAVAILABLE": "is its Redis there? the service's log says more",
    "USER_DELETED": "the name is free again after store.tombstone_ttl",
}


def hint(error: PapaError) -> str:
    """Its reason, which documentation and logs know it by, and the way out."""
    after = f", try again in {error.retry_after:g} s" if error.retry_after else ""
    known = HINTS.get(error.reason, "")
    return error.reason + after + (f"; {known}" if known else "")
