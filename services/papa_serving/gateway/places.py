"""Whose the calls under way are: nobody may have more of them than are free, so that there is room for others'."""

from __future__ import annotations

from collections import Counter

from papa_serving.contracts.errors import Overloaded
from papa_serving.contracts.identity import UserKey


class Places:
    """Of one gateway. `in_flight` counts all calls, also those whose user is not known yet."""

    def __init__(self, limit: int) -> None:
        self.limit, self.in_flight = limit, 0
        self.of_user: Counter[UserKey] = Counter()


class Place:
    """One call's. It belongs to the first user that the call names."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._user: UserKey | None = None

    def belongs_to(self, user: UserKey) -> None:
        """Counts the call as that user's. Raises Overloaded."""
        if self._user is not None:
            return
        places = self._places
        mine = places.of_user[user]
        if mine and mine >= places.limit - places.in_flight:
            raise Overloaded(f"this user has {mine} calls under way, as many as are left for others")
        places.of_user[user] += 1
        self._user = user

    def leave(self) -> None:
        """The call is over."""
        if self._user is None:
            return
        self._places.of_user[self._user] -= 1
        if not self._places.of_user[self._user]:
            del self._places.of_user[self._user]
