"""Allows one running service per data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from papa_serving.local.failure import Failure


def running_service(data_dir: Path) -> str:
    """The process id of the service that runs on a data folder, "" where none does."""
    try:
        file = os.open(data_dir / "papa.lock", os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _owner(file)
    finally:
        os.close(file)
    return ""


def _owner(file: int) -> str:
    return os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"


class InstanceLock:
    """Holds `data_dir`/papa.lock while the service runs. The kernel releases it however the process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file = -1

    def __enter__(self) -> Self:
        """Raises Failure when another service runs on this folder, or the folder cannot be written."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            # It contains liked pictures, logs and the socket of Redis.
            self._data_dir.chmod(0o700)
            self._file = os.open(self._data_dir / "papa.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Failure(
                f"the data folder {self._data_dir} cannot be written: {error.strerror}", "--data-dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(self._file)
            os.close(self._file)
            raise Failure(
                f"a service is already running on {self._data_dir} (process {owner})",
                "stop it, or choose another --data-dir",
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)
