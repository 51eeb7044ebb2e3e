"""Decodes pictures in processes that can be killed, and shares these processes fairly among users."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field

from papa_serving.contracts.errors import DeadlineExceeded, Overloaded
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.conversion.decoder_process import ANSWER, READY, REQUEST
from papa_serving.gateway.conversion.pictures import BadPicture

_log = logging.getLogger(__name__)

PROCESSES = 2
"""Decoder processes. One user occupies all but one of them at most, so that others need not wait for its pictures."""
CPU_SECONDS = 1.0
"""Seconds of CPU for one picture. The largest that is allowed, 4 million pixels, takes 0.05 to 0.3."""
WALL_SECONDS = 30.0
"""Seconds after which a process that has not answered is killed, however little CPU it got."""
QUEUED_BYTES = 64 * 2**20
"""The most bytes of pictures that wait or are being decoded. One user holds at most as much as is left for others."""
RETRY_AFTER = 1.0
"""Seconds after which a caller may try again when no process could be started."""
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""All of the environment that a decoder sees."""


@dataclass(eq=False)
class _Picture:
    """A picture that waits, and the answer that its caller waits for."""

    user: UserKey
    request: bytes
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairPictures:
    """The pictures that wait, in the order of the Virtual Token Counter (Sheng et al., OSDI 2024).

    Each tenant and each user has a counter of the CPU seconds that their pictures took. The next picture is of the
    tenant with the lowest counter, and of that tenant's user with the lowest one. Whoever comes back is lifted to the
    lowest counter of those that are here, so that no credit is saved up while away. Within a user pictures keep their
    order.
    """

    def __init__(self) -> None:
        self._waiting: dict[UserKey, deque[_Picture]] = {}
        self._running: Counter[UserKey] = Counter()
        self._used: dict[str | UserKey, float] = {}

    def push(self, picture: _Picture) -> None:
        """Adds a picture behind the same user's others."""
        user, here = picture.user, {*self._waiting, *self._running}
        tenants = {each.tenant for each in here}
        if user.tenant not in tenants:
            self._lift(user.tenant, tenants)
        if user not in here:
            self._lift(user, {each for each in here if each.tenant == user.tenant})
        self._waiting.setdefault(user, deque()).append(picture)

    def pop(self, most: int) -> _Picture | None:
        """The next picture of a user of whom fewer than `most` are being decoded; None when there is none."""
        users = [user for user in self._waiting if self._running[user] < most]
        if not users:
            return None
        user = min(users, key=lambda each: (self._used[each.tenant], self._used[each]))
        picture = self._waiting[user].popleft()
        if not self._waiting[user]:
            del self._waiting[user]
        self._running[user] += 1
        return picture

    def done(self, user: UserKey, seconds: float) -> None:
        """Charges a picture that was popped."""
        for name in (user.tenant, user):
            self._used[name] += seconds
        self._running[user] -= 1
        self._running += Counter()  # drops zeros
        if not self._waiting and not self._running:
            self._used.clear()

    def _lift(self, name: str | UserKey, others: Collection[str | UserKey]) -> None:
        floor = min((self._used[each] for each in others), default=0.0)
        self._used[name] = max(self._used.get(name, 0.0), floor)

    def remove(self, picture: _Picture) -> None:
        """Forgets a picture that still waits."""
        waiting = self._waiting.get(picture.user)
        if waiting and picture in waiting:
            waiting.remove(picture)
            if not waiting:
                del self._waiting[picture.user]


class PictureReader:
    """Decodes as papa_serving.gateway.conversion.pictures.decode does. Belongs to one event loop."""

    def __init__(self, max_pixels: int, cpu_seconds: float = CPU_SECONDS, processes: int = PROCESSES) -> None:
        self._max_pixels, self._cpu_seconds, self._processes = max_pixels, cpu_seconds, processes
        self._pictures = FairPictures()
        self._bytes: Counter[UserKey] = Counter()
        self._changed = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []

    async def read(
        self,
        user: UserKey,
        data: bytes,
        shape: tuple[int, int, int],
        prompt: str = "",
        deadline: float | None = None,
    ) -> bytes:
        """Decodes a picture of `user`; `deadline` is of the monotonic clock.

        Raises BadPicture, Overloaded when too much waits, DeadlineExceeded.
        """
        words = prompt.encode()
        picture = _Picture(user, REQUEST.pack(len(data), len(words), *shape) + data + words)
        self._reserve(user, len(picture.request))
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await self._submit(picture)
                return await picture.answer
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the picture was decoded") from error
        finally:
            picture.answer.cancel()
            self._pictures.remove(picture)
            self._bytes[user] -= len(picture.request)
            self._bytes += Counter()  # drops zeros

    async def close(self) -> None:
        """Kills the processes. Pictures that wait are not decoded any more."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _reserve(self, user: UserKey, size: int) -> None:
        total = self._bytes.total()
        if total and self._bytes[user] + size > QUEUED_BYTES - total:
            raise Overloaded("more pictures wait to be decoded than this gateway holds", retry_after=self._cpu_seconds)
        self._bytes[user] += size

    async def _submit(self, picture: _Picture) -> None:
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._processes)]
        async with self._changed:
            self._pictures.push(picture)
            self._changed.notify_all()

    async def _next(self) -> _Picture:
        most = max(1, self._processes - 1)
        async with self._changed:
            while (picture := self._pictures.pop(most)) is None:
                await self._changed.wait()
            return picture

    async def _work(self) -> None:
        """Gives one process one picture after another."""
        decoder = Decoder(self._cpu_seconds, self._max_pixels)
        try:
            while True:
                picture, seconds = await self._next(), self._cpu_seconds
                try:
                    good, seconds, answer = await decoder.decode(picture.request)
                    _settle(picture, answer if good else BadPicture(answer.decode()))
                except DecoderEnded:
                    _log.warning("a picture ended its decoder", extra={"user_digest": picture.user.digest})
                    _settle(picture, BadPicture(f"cannot be decoded in {self._cpu_seconds:g} s"))
                except OSError as error:
                    _log.error("the decoder of pictures does not start: %s", error)
                    _settle(picture, Overloaded("no picture can be decoded now", retry_after=RETRY_AFTER))
                finally:
                    await self._done(picture, seconds)
        finally:
            await decoder.end()

    async def _done(self, picture: _Picture, seconds: float) -> None:
        async with self._changed:
            self._pictures.done(picture.user, seconds)
            self._changed.notify_all()


def _settle(picture: _Picture, outcome: bytes | Exception) -> None:
    """Answers, unless the caller has gone."""
    if picture.answer.done():
        return
    if isinstance(outcome, Exception):
        picture.answer.set_exception(outcome)
    else:
        picture.answer.set_result(outcome)


class DecoderEnded(Exception):
    """A picture has ended the process that was to decode it."""


class Decoder:
    """One process, started when it is first needed and again after its end."""

    def __init__(self, cpu_seconds: float, max_pixels: int) -> None:
        self._arguments = str(cpu_seconds), str(max_pixels)
        self._process: Process | None = None

    async def decode(self, request: bytes) -> tuple[bool, float, bytes]:
        """The parts of the answer, see decoder_process.ANSWER. Raises DecoderEnded; OSError when no process starts."""
        try:
            return await self._exchange(request)
        except EOFError:
            # Ended by this picture, or while it was idle, for instance by the kernel for want of memory.
            if await self.end() == -signal.SIGPROF:
                raise DecoderEnded from None
        try:
            return await self._exchange(request)
        except EOFError as error:
            await self.end()
            raise DecoderEnded from error

    async def end(self) -> int | None:
        """Kills the process, if there is one, and returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # reads to the end, so that the pipes are closed when this returns
        return process.returncode

    async def _exchange(self, request: bytes) -> tuple[bool, float, bytes]:
        """Raises EOFError when the process ends before it has answered, or takes too long."""
        process = self._process or await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(WALL_SECONDS):
                process.stdin.write(request)
                await process.stdin.drain()
                good, seconds, length = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
                return good, seconds, await process.stdout.readexactly(length)
        except OSError as error:  # a broken pipe; TimeoutError is one as well
            raise EOFError(str(error)) from error

    async def _started(self) -> Process:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        module = "papa_serving.gateway.conversion.decoder_process"
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, *self._arguments,
            stdin=PIPE, stdout=PIPE, env=environment | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        if await process.stdout.read(len(READY)) != READY:
            raise OSError(f"it ended with {await self.end()}")
        return process
