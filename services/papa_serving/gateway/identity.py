"""Who calls, and whom they may speak for: the one place through which every RPC's tenant and user go.

Without authentication everybody is the default tenant, may name any other, and has every scope. A verified credential
gives a bound Identity instead.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from papa_serving.contracts.errors import Forbidden
from papa_serving.contracts.identity import DEFAULT_TENANT, UserKey
from papa_serving.gateway.places import Place
from papa_serving.gateway.rates import Meter
from papa_serving.stubs.serving.v1 import types_pb2


class Scope(StrEnum):
    """What a credential may be used for; none includes another."""

    GENERATE = "generate"
    FEEDBACK = "feedback"
    ADMIN = "admin"


@dataclass(frozen=True)
class Identity:
    """A caller. `tenant` answers where a request names none; a `bound` caller reaches no other tenant, and where
    `user` is set no other user. `expires_at` is in seconds since the epoch."""

    tenant: str = DEFAULT_TENANT
    bound: bool = False
    user: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    expires_at: float = math.inf
    meter: Meter | None = field(default=None, compare=False)
    place: Place | None = field(default=None, compare=False)

    def key(self, user: types_pb2.User, cost: float = 1.0) -> UserKey:
        """The user that a request means, charged with `cost`. Raises Forbidden for a foreign tenant or user,
        RateLimited, Overloaded."""
        tenant = user.tenant or self.tenant
        if self.bound and tenant != self.tenant:
            raise Forbidden("the credential does not reach this tenant", field="user.tenant")
        if self.user and user.user != self.user:
            raise Forbidden("the credential does not reach this user", field="user.user")
        key = UserKey(tenant, user.user)
        if self.place is not None:
            self.place.belongs_to(key)
        if self.meter is not None:
            self.meter.charge(key, cost)
        return key


Authenticate = Callable[[Mapping[str, str]], Awaitable[Identity]]
"""From the metadata of a call to its Identity; raises Unauthenticated or Forbidden."""

ANYBODY = Identity()

caller: ContextVar[Identity] = ContextVar("caller", default=ANYBODY)
"""Set by the edge before a servicer is reached."""


async def anybody(metadata: Mapping[str, str]) -> Identity:
    """No authentication."""
    del metadata
    return ANYBODY
