"""Small files that may be replaced while we run: keys, certificates, passwords."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import SecretStr

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERY = 1.0
"""Seconds between two checks for a change."""


class WatchedFile(Generic[T]):
    """The value of one or more files. They are read again when one of them has changed.

    Changes are checked for every EVERY seconds at most. New content that cannot be used is logged, and the old value
    stays.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T]) -> None:
        """Reads the first value; raises what `read` raises."""
        self._paths, self._read = paths, read
        self._stamp, self._looked = self._stamps(), time.monotonic()
        self._value = read()

    def value(self) -> T:
        """The newest value that could be read."""
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


def current_secret(given: SecretStr | None, file: Path | None) -> Callable[[], str]:
    """Returns a function that gives the secret as it is now: `given`, else the content of `file`, else "".

    Raises OSError for a file that cannot be read and ValueError for an empty one.
    """
    if given is not None or file is None:
        fixed = given.get_secret_value() if given is not None else ""
        return lambda: fixed
    return WatchedFile((file,), lambda: _secret_in(file)).value


def _secret_in(file: Path) -> str:
    if not (secret := file.read_text().strip()):
        raise ValueError(f"{file} is empty")
    return secret


def _about(paths: tuple[Path, ...], error: Exception) -> dict[str, object]:
    return {"files": [str(path) for path in paths], "kind": type(error).__name__}
