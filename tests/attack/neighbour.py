"""A healthy user of another tenant, in a process of their own: generates and likes, one call after the other.

Reads a line whenever somebody wants to know, and answers with a line of JSON: seconds of every call since the last
question, and what went wrong.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE, Popen

from papa_serving.client import AsyncClient, FeedbackEvent, PapaError, Retry, Timeouts
from PIL import Image

PAUSE = 0.02
PATIENT = Timeouts(generate=20.0, feedback=20.0)


@dataclass(frozen=True)
class Seen:
    """`seconds` of the calls that were answered, `failures` of the others."""

    seconds: list[float]
    failures: list[str]


class Neighbour:
    """Asks the process."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process

    async def seen(self) -> Seen:
        """Since the last question."""
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> Seen:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))


@contextmanager
def neighbour(address: str, token: str) -> Iterator[Neighbour]:
    """Runs until the block ends."""
    environment = {**os.environ, "NEIGHBOUR_TOKEN": token}
    command = [sys.executable, "-m", "tests.attack.neighbour", address]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as process:
        try:
            yield Neighbour(process)
        finally:
            process.kill()


async def _work(address: str, seen: Seen) -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 99).save(buffer, "PNG")
    token = os.environ["NEIGHBOUR_TOKEN"]
    async with AsyncClient(address, tenant="other", token=token, timeouts=PATIENT, retry=Retry(attempts=1)) as papa:
        for number in itertools.count():
            begun = time.monotonic()
            try:
                if number % 2:
                    await papa.generate("carol", 1)
                else:
                    like = FeedbackEvent("carol", 1.0, image=buffer.getvalue())
                    # Taken back at once: nobody learns here, and what waits must not fill this user's own backlog.
                    back = FeedbackEvent.taking_back("carol", like.event_id)
                    for outcome in await papa.submit_feedback([like, back]):
                        if outcome.error is not None:
                            raise outcome.error
                seen.seconds.append(time.monotonic() - begun)
            except PapaError as failure:
                seen.failures.append(f"{type(failure).__name__}: {failure}")
            await asyncio.sleep(PAUSE)


async def _main(address: str) -> None:
    seen = Seen([], [])
    worker = asyncio.create_task(_work(address, seen))
    while await asyncio.to_thread(sys.stdin.readline):
        if worker.done():
            worker.result()
        print(json.dumps(vars(seen)), flush=True)
        seen.seconds.clear()
        seen.failures.clear()
    worker.cancel()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
