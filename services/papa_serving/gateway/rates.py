"""Token buckets, one a tenant and one a user, of this process alone: who uses up their own leaves the others' alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from papa_serving.contracts.errors import RateLimited
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import RateSettings

_SMALLEST_SWEEP = 1_024


class Buckets:
    """Leaky buckets by name, each one number: when it will be full again (the generic cell rate algorithm).

    A full bucket is forgotten, so that memory follows the names in use. What costs more than a bucket holds is let
    through when it is full, and then owed.
    """

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` per second, 0 for no limit; `burst` is what a full bucket holds."""
        self._rate, self._burst = rate, burst
        self._full_at: dict[object, float] = {}
        self._sweep_at = _SMALLEST_SWEEP

    def wait(self, name: object, cost: float, now: float) -> float:
        """Seconds until `cost` can be taken; 0 when it can be now."""
        if not self._rate:
            return 0.0
        lacking = max(0.0, self._full_at.get(name, 0.0) - now) * self._rate
        return max(0.0, (lacking + min(cost, self._burst) - self._burst) / self._rate)

    def take(self, name: object, cost: float, now: float) -> None:
        """Takes it, whether there is enough or not."""
        if not self._rate:
            return
        self._full_at[name] = max(now, self._full_at.get(name, 0.0)) + cost / self._rate
        if len(self._full_at) > self._sweep_at:
            self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}
            self._sweep_at = max(_SMALLEST_SWEEP, 2 * len(self._full_at))

    def __len__(self) -> int:
        return len(self._full_at)


class Meter:
    """Both limits at once: nothing is taken from one when the other refuses."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.tenants = Buckets(settings.tenant, settings.tenant_burst)
        self.users = Buckets(settings.user, settings.user_burst)

    def charge(self, user: UserKey, cost: float) -> None:
        """Raises RateLimited, with the time after which it can go through."""
        now = self._clock()
        for buckets, name, subject in (
            (self.users, user, f"user:{user.user}"),
            (self.tenants, user.tenant, f"tenant:{user.tenant}"),
        ):
            if (wait := buckets.wait(name, cost, now)) > 0:
                kind = subject.partition(":")[0]
                raise RateLimited(
                    f"this {kind} asks for more than its rate allows", retry_after=wait, metadata={"subject": subject}
                )
        self.users.take(user, cost, now)
        self.tenants.take(user.tenant, cost, now)
