"""Generations for many users, shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from papa_serving.client import wire
from papa_serving.client.calls import Calls
from papa_serving.client.records import GenerateOptions, User, UserGeneration
from papa_serving.stubs.serving.v1 import generation_pb2

USERS_PER_CALL = 100
"""As many as a gateway accepts in one call."""


class Many:
    """The users of one call who have no result yet. A call that is made again asks for these alone."""

    def __init__(self, calls: Calls, users: Iterable[str | User], count: int, options: GenerateOptions) -> None:
        """Raises InvalidRequest for what no message can hold."""
        self._left = {index: (user, calls.generate_request(user, count, options)) for index, user in enumerate(users)}
        self._asked: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._left)

    def timeout(self, of_one: float) -> float:
        """The default deadline of the call. The time runs while its caller handles the results, one after another."""
        return of_one * len(self._left)

    def request(self) -> generation_pb2.GenerateManyRequest:
        """The request for those who are left."""
        self._asked = list(self._left)
        return generation_pb2.GenerateManyRequest(requests=[request for _, request in self._left.values()])

    def result(self, message: generation_pb2.GenerateManyResponse, request_id: str) -> UserGeneration:
        """Reads one message of the answer to the last request."""
        user, _ = self._left.pop(self._asked[message.index])
        return wire.user_generation(user, message, request_id)


def in_calls(calls: Calls, users: Iterable[str | User], count: int, options: GenerateOptions) -> Iterator[Many]:
    """Yields the users in parts of one call each."""
    waiting = iter(users)
    while part := list(islice(waiting, USERS_PER_CALL)):
        yield Many(calls, part, count, options)
