"""Both clients behind one face, so that the same tests run over each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from papa_serving.client import AsyncClient, Client, Retry

from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["service", "unstarted"]

QUICK = Retry(attempts=4, first_delay=0.02, longest_delay=0.1)
ITERATED = ("stream_generate", "stream_feedback", "watch_user", "list_revisions", "list_users", "generate_many")
END = object()


class Iterated:
    """A blocking iterator, one step a thread; attributes are those of the iterator."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __aiter__(self) -> Iterated:
        return self

    async def __anext__(self) -> Any:
        found = await asyncio.to_thread(next, self._iterator, END)
        if found is END:
            raise StopAsyncIteration
        return found


class Blocking:
    """The blocking client with the asyncio client's face."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name in ITERATED:
            return lambda *args, **options: Iterated(method(*args, **options))
        return lambda *args, **options: asyncio.to_thread(method, *args, **options)


Connect = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes clients of one kind for an address."""
    async with AsyncExitStack() as stack:

        def make(address: str, **options: Any) -> Any:
            options = {"retry": QUICK, **options}
            if request.param == "asyncio":
                client = AsyncClient(address, **options)
                stack.push_async_callback(client.close)
                return client
            blocking = Client(address, **options)
            stack.callback(blocking.close)
            return Blocking(blocking)

        yield make


@pytest.fixture
async def client(connect: Connect, service: Service) -> Any:
    """Connected to the running service."""
    return connect(service.gateway.address)
