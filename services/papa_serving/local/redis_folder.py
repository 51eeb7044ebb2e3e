"""The embedded server's folder: one server at a time, and a place for its socket."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

from papa_serving.local.redis_binary import RedisProcessError

LOCK_PATIENCE = 5.0
"""Seconds that the server of a launcher that was killed may take to end before its folder counts as in use."""

_LONGEST_SOCKET_PATH = 90  # bytes; sockaddr_un holds 107 and Redis appends to the name while it binds


def lock_folder(folder: Path) -> int:
    """Makes the folder, for this user alone, and locks it: two servers on one AOF would destroy it.

    The server inherits the lock and so holds it as long as it lives. Raises RedisProcessError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "redis.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RedisProcessError(f"{folder} cannot be written: {error.strerror}") from error
    deadline = time.monotonic() + LOCK_PATIENCE
    while not _try_lock(lock):
        if time.monotonic() > deadline:
            os.close(lock)
            raise RedisProcessError(f"{folder} is in use by another service: stop it or choose another data_dir")
        time.sleep(0.02)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def socket_folder(data_dir: Path) -> Path:
    """A folder for the socket that only this user can enter: in `data_dir`, or a temporary one if that is too long."""
    inside = data_dir / "socket"
    if len(os.fsencode(inside)) > _LONGEST_SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="papa-redis-"))
    inside.mkdir(exist_ok=True)
    inside.chmod(0o700)
    return inside
