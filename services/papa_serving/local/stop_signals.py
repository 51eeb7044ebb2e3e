"""Handles Ctrl-C, SIGTERM and hang-ups: the first signal ends the service in order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from papa_serving.local.child_processes import kill_descendants

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The service was asked to stop. Like KeyboardInterrupt, it is not caught by `except Exception`."""


class StopSignals:
    """Within the block, the first signal raises Stopped in the main thread, unless the end has already begun.

    A second signal kills all descendants and exits with code 130 at once. Where a signal arrives within a destructor
    or a callback of the garbage collector, Python reports Stopped and goes on: whoever waits for ever looks at `asked`.
    """

    def __init__(self) -> None:
        self._ending = False
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Installs the handlers. Call it again after a library has replaced them, as Ray does when it starts."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # nohup ignores hang-ups so that the service lives on. A shell ignores Ctrl-C in background processes,
                # but a SIGINT that somebody sends on purpose must still work.
                if number != signal.SIGHUP or self._previous[number] is not signal.SIG_IGN:
                    signal.signal(number, self._handle)

    @property
    def asked(self) -> bool:
        """Whether a signal has come, or the orderly end has begun."""
        return self._ending

    def begin_end(self) -> None:
        """Notes that the orderly end has begun: from now on a signal forces an immediate end."""
        self._ending = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._ending:
            kill_descendants()
            os._exit(130)
        self.begin_end()
        raise Stopped
