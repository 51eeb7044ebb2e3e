"""The identity of a caller. Every RPC checks its tenant and user with `Identity.reach`.

Without authentication everybody is the default tenant, may name any other, and has every scope. A verified credential
gives a bound Identity instead.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from papa_serving.contracts.errors import Forbidden
from papa_serving.contracts.identity import DEFAULT_TENANT, UserKey
from papa_serving.stubs.serving.v1 import types_pb2


class Scope(StrEnum):
    """The purposes of a credential. No scope includes another."""

    GENERATE = "generate"
    FEEDBACK = "feedback"
    CATALOGUE = "catalogue"
    ADMIN = "admin"


@dataclass(frozen=True)
class Identity:
    """A caller.

    `tenant` is used where a request names none. A `bound` caller reaches no other tenant, and where `user` is set no
    other user. `expires_at` is in seconds since the epoch.
    """

    tenant: str = DEFAULT_TENANT
    bound: bool = False
    user: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    expires_at: float = math.inf

    def reach_tenant(self, user: types_pb2.User) -> str:
        """The tenant that a request means. Raises Forbidden for one that the credential does not reach."""
        tenant = user.tenant or self.tenant
        if self.bound and tenant != self.tenant:
            raise Forbidden("the credential does not reach this tenant", field="user.tenant")
        return tenant

    def reach_whole_tenant(self, tenant: str) -> str:
        """The tenant that a request about no user means ("" is the caller's own).

        Raises Forbidden for a credential of another tenant or of one user.
        """
        if self.user:
            raise Forbidden("the credential is one user's, and this concerns the whole tenant", field="tenant")
        named = tenant or self.tenant
        if self.bound and named != self.tenant:
            raise Forbidden("the credential does not reach this tenant", field="tenant")
        return named

    def reach(self, user: types_pb2.User) -> UserKey:
        """The user that a request means. Raises Forbidden for a tenant or user that the credential does not reach."""
        tenant = self.reach_tenant(user)
        if self.user and user.user != self.user:
            raise Forbidden("the credential does not reach this user", field="user.user")
        return UserKey(tenant, user.user)


Authenticate = Callable[[Mapping[str, str]], Awaitable[Identity]]
"""Returns the Identity that the metadata of a call prove. Raises Unauthenticated or Forbidden."""

ANYBODY = Identity()


async def anybody(metadata: Mapping[str, str]) -> Identity:
    """Authenticates nobody: every caller is ANYBODY."""
    del metadata
    return ANYBODY
