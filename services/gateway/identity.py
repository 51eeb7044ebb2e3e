"""Who calls, and whom they may speak for: the one place through which every RPC's tenant and user go.

There is no credential yet: everybody is the default tenant and may name any other. A verified credential becomes
another `Authenticate` that returns a bound Identity; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from services.contracts.errors import Forbidden
from services.contracts.identity import DEFAULT_TENANT, UserKey
from services.stubs.serving.v1 import types_pb2


@dataclass(frozen=True)
class Identity:
    """A caller. `tenant` answers where a request names none; a `bound` caller reaches no other tenant."""

    tenant: str = DEFAULT_TENANT
    bound: bool = False

    def key(self, user: types_pb2.User) -> UserKey:
        """The user that a request means. Raises Forbidden for a foreign tenant."""
        tenant = user.tenant or self.tenant
        if self.bound and tenant != self.tenant:
            raise Forbidden("the credential does not reach this tenant", field="user.tenant")
        return UserKey(tenant, user.user)


Authenticate = Callable[[Mapping[str, str]], Awaitable[Identity]]
"""From the metadata of a call to its Identity; raises Unauthenticated or Forbidden."""

ANYBODY = Identity()

caller: ContextVar[Identity] = ContextVar("caller", default=ANYBODY)
"""Set by the edge before a servicer is reached."""


async def anybody(metadata: Mapping[str, str]) -> Identity:
    """No authentication."""
    del metadata
    return ANYBODY
