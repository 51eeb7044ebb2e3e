"""A small file that somebody may replace while we run: keys, certificates."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERY = 1.0
"""Seconds between two looks."""


class WatchedFile(Generic[T]):
    """The value of one or more files, read anew once any of them has changed; looked at once a second at most.

    A new content that cannot be read is logged, and the value stays what it was.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T]) -> None:
        """Raises what `read` raises: the first content must be good."""
        self._paths, self._read = paths, read
        self._stamp, self._looked = self._stamps(), time.monotonic()
        self._value = read()

    def value(self) -> T:
        """The newest good one."""
        now = time.monotonic()
        if now - self._looked >= EVERY:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                return
            self._value, self._stamp = self._read(), stamp
        except (OSError, ValueError) as error:
            # Without the error's text, which may quote the content.
            log.error("a changed file is not usable, the last good content stays", extra=_about(self._paths, error))
        else:
            log.info("took up a changed file", extra={"files": [str(path) for path in self._paths]})

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        found = (path.stat() for path in self._paths)
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def _about(paths: tuple[Path, ...], error: Exception) -> dict[str, object]:
    return {"files": [str(path) for path in paths], "kind": type(error).__name__}
