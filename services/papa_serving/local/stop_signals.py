"""Ctrl-C, SIGTERM and a terminal that hangs up: the first asks for an orderly end, the second for an immediate one."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from papa_serving.local.child_processes import kill_descendants

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody asked the service to stop; like KeyboardInterrupt it passes every `except Exception`."""


class StopSignals:
    """While entered, the first signal raises Stopped in the main thread, unless the end has begun already.

    A second one kills every process below this one and leaves with exit code 130 at once.
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
        """Takes the signals; once more where a library may have taken them for itself, as Ray does when it starts."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # nohup has hang-ups ignored, and so asks to live on. A shell has Ctrl-C ignored in what it starts in
                # the background, which is no reason to be deaf to whoever sends that signal on purpose.
                if number != signal.SIGHUP or self._previous[number] is not signal.SIG_IGN:
                    signal.signal(number, self._handle)

    def begin_end(self) -> None:
        """From now on a signal no longer asks for an orderly end, which has begun: it forces one."""
        self._ending = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._ending:
            kill_descendants()
            os._exit(130)
        self.begin_end()
        raise Stopped
