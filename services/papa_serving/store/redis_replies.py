"""Distrusts what comes back from Redis: bounds a reply while it is read, and types the error where it makes no sense.

The server at redis.url may be something else, hold another program's data, or be damaged. None of that may end in an
untyped error, take the process's memory, or pass for an acknowledgement.
"""

from __future__ import annotations

import functools
import inspect
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

# The parser of RESP2 is not exported, and is the only place where a reply can be refused before it fills the memory.
from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import InvalidResponse
from typing_extensions import override

from papa_serving.contracts.errors import StorageDamaged

_log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 256 * 2**20
"""The most bytes of one reply. The largest that is expected holds the 500 events of one read, each with its sample."""

MAX_DEPTH = 16
"""Arrays within arrays; a read of the log has five."""

PART_BYTES = 1024
"""The bytes that every part of a reply counts for at least, so that reading a quarter of a million numbers ends it.

A part takes less memory, but as much time to read as a text of this length.
"""

_NONSENSE = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, AssertionError, struct.error,
)  # fmt: skip
"""The exceptions that a reply of an unexpected shape can cause."""

_Class = TypeVar("_Class", bound=type)
_Text = bytes | None
_ANSWERS: dict[str, Any] = {
    "HMGET": list, "ZRANGE": list, "XRANGE": list, "XREAD": list | dict | None, "GET": _Text, "HGET": _Text,
}  # fmt: skip


class ScriptUnknown(StorageDamaged):
    """Redis does not know a script by its sha1."""


class BoundedParser(_AsyncRESP2Parser):
    """Reads replies of up to MAX_REPLY_BYTES and MAX_DEPTH.

    Raises InvalidResponse beyond, which ends the connection.
    """

    __slots__ = ("_depth", "_room")

    @override
    async def read_response(self, disable_decoding: bool = False) -> Any:
        self._room, self._depth = MAX_REPLY_BYTES, 0
        return await super().read_response(disable_decoding)

    @override
    async def _read_response(self, disable_decoding: bool = False) -> Any:
        self._take(PART_BYTES)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidResponse(f"a reply of more than {MAX_DEPTH} arrays within arrays")
        try:
            return await super()._read_response(disable_decoding)
        except ValueError as error:  # a length or a number that is none, a line without an end
            raise InvalidResponse(f"no reply of Redis: {error}") from error
        finally:
            self._depth -= 1

    @override
    async def _read(self, length: int) -> bytes:
        self._take(length)
        return await super()._read(length)

    def _take(self, size: int) -> None:
        self._room -= size
        if size < 0 or self._room < 0:
            raise InvalidResponse(f"a reply of more than {MAX_REPLY_BYTES} bytes")


def check_answer(command: str, reply: Any) -> None:
    """Raises StorageDamaged where the reply to `command` is of a type that Redis never answers it with."""
    if command in _ANSWERS and not isinstance(reply, _ANSWERS[command]):
        raise damaged(f"{command} was answered with {type(reply).__name__}")


def damaged(why: str) -> StorageDamaged:
    """The error, with what is known of it for the log."""
    return StorageDamaged(f"Redis answers what cannot be understood: {why[:200]}")


@contextmanager
def understood() -> Iterator[None]:
    """Raises StorageDamaged for whatever fails because a reply is not what it should be."""
    try:
        yield
    except _NONSENSE as error:
        _log.debug("a reply of Redis cannot be understood", exc_info=error)
        raise damaged(f"{type(error).__name__}: {error}") from error


def checked_replies(*but: str) -> Callable[[_Class], _Class]:
    """Decorates a class that reads replies: each of its asynchronous methods, save those named, works `understood`."""

    def decorate(kind: _Class) -> _Class:
        for name, method in list(vars(kind).items()):
            if inspect.iscoroutinefunction(method) and name not in but:
                setattr(kind, name, _checked(method))
            elif inspect.isasyncgenfunction(method):
                setattr(kind, name, _checked_iterator(method))
        return kind

    return decorate


def _checked(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def checked(*given: Any, **named: Any) -> Any:
        with understood():
            return await method(*given, **named)

    return checked


def _checked_iterator(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(method)
    async def checked(*given: Any, **named: Any) -> AsyncIterator[Any]:
        with understood():
            async with aclosing(method(*given, **named)) as results:  # type: ignore[type-var]
                async for result in results:
                    yield result

    return checked
