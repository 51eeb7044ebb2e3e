"""A cancellation that redis-py swallows still ends the caller."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.store.redis_client import call
from redis.exceptions import ConnectionError as LostConnectionError


class Swallowing:
    """Answers, or fails, at the very moment in which its caller is cancelled, as asyncio.wait_for of 3.11 may."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked = asyncio.Event()
        self.failure = failure

    async def execute_command(self, *command: object) -> Any:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.failure is not None:
                raise self.failure from None
            return b"PONG"


FAILURES = pytest.mark.parametrize("failure", [None, LostConnectionError("lost")])


@FAILURES
async def test_a_cancelled_call_is_cancelled(failure: Exception | None) -> None:
    client = Swallowing(failure)
    task = asyncio.create_task(call(client, "PING"))  # type: ignore[arg-type]
    await client.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@FAILURES
async def test_a_time_out_around_a_call_is_a_time_out(failure: Exception | None) -> None:
    client = Swallowing(failure)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await call(client, "PING")  # type: ignore[arg-type]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_call_in_a_task_that_was_asked_before_goes_through() -> None:
    """Clean-up code after a cancellation can still call Redis."""

    class Answering:
        async def execute_command(self, *command: object) -> bytes:
            await asyncio.sleep(0)
            return b"PONG"

    async def cleaning_up() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            return await call(Answering(), "PING")  # type: ignore[arg-type]  # noqa: B012 - that is what is asked

    task = asyncio.create_task(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == b"PONG"


async def test_a_failure_without_a_cancellation_is_the_typed_error() -> None:
    class Failing:
        async def execute_command(self, *command: object) -> bytes:
            raise LostConnectionError("lost")

    with pytest.raises(StorageUnavailable):
        await call(Failing(), "PING")  # type: ignore[arg-type]
