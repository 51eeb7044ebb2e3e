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
_Stamp = tuple[tuple[Path, int, int, int], ...]
"""Each file with its time of modification, size and inode. Two that are equal say that nothing has changed."""

EVERY = 1.0
"""Seconds between two checks for a change."""


class WatchedFile(Generic[T]):
    """The value of one or more files. They are read again when one of them has changed.

    Changes are checked for every EVERY seconds at most. New content that cannot be used is logged once, and the old
    value stays. The next check reads it again.
    """

    def __init__(self, paths: tuple[Path, ...] | Callable[[], tuple[Path, ...]], read: Callable[[], T]) -> None:
        """Reads the first value; raises what `read` raises.

        A function in place of `paths` lists them at every check: a file that was added or removed is a change too.
        """
        self._list = paths if callable(paths) else lambda: paths
        self._read = read
        self._stamp, self._looked = self._stamps(), time.monotonic()
        self._reported: object = None
        self._value = read()

    def value(self) -> T:
        """The newest value that could be read."""
        now = time.monotonic()
        if now - self._looked >= EVERY:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        stamp: _Stamp | None = None
        try:
            stamp = self._stamps()
            if stamp != self._stamp:
                self._value, self._stamp = self._read(), stamp
                log.info("took up a changed file", extra={"files": _files(stamp)})
            self._reported = None
        except (OSError, ValueError) as error:
            self._report(stamp, error)

    def _report(self, stamp: _Stamp | None, error: Exception) -> None:
        """Logs what is wrong with a change when it is first seen, not at every check."""
        kind = type(error).__name__
        if self._reported == (stamp, kind):
            return
        self._reported = (stamp, kind)
        # Without the error's text, which may quote the content.
        about = {"files": _files(self._stamp if stamp is None else stamp), "kind": kind}
        log.error("a changed file is not usable, the last good content stays", extra=about)

    def _stamps(self) -> _Stamp:
        found = ((path, path.stat()) for path in self._list())
        return tuple((path, each.st_mtime_ns, each.st_size, each.st_ino) for path, each in found)


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


def _files(stamp: _Stamp) -> list[str]:
    return [str(path) for path, *_ in stamp]
