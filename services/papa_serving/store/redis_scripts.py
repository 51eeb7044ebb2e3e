"""Lua scripts: read once from their files, run by sha1, and sent in full to a server that does not know them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from papa_serving.store.redis_client import Argument, Client, call


@dataclass(frozen=True)
class Script:
    """One script. Its file documents its keys, arguments and reply."""

    source: bytes
    sha1: str

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Runs it atomically. Raises StorageUnavailable."""
        try:
            return await call(client, *self.by_sha1(keys, arguments))
        except NoScriptError:
            return await call(client, *self.in_full(keys, arguments))

    def by_sha1(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """The command for a server that knows the script."""
        return ("EVALSHA", self.sha1, len(keys), *keys, *arguments)

    def in_full(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """The command for a server that does not know the script; it knows it afterwards."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)


def load(package: str, name: str) -> Script:
    """Reads lua/`name`.lua of a package."""
    source = resources.files(package).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
