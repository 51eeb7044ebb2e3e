"""Lua scripts: read once from their files, run by sha1, and sent in full to a server that does not know them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from papa_serving.store.redis_client import Argument, Client, call
from papa_serving.store.redis_replies import ScriptUnknown, damaged


@dataclass(frozen=True)
class Script:
    """One script. Its file documents its keys, arguments and reply."""

    source: bytes
    sha1: str
    answers: Any

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Runs it atomically. Raises StorageUnavailable, StorageDamaged for an answer that is not of `answers`."""
        try:
            reply = await call(client, *self.by_sha1(keys, arguments))
        except ScriptUnknown:
            reply = await call(client, *self.in_full(keys, arguments))
        if not isinstance(reply, self.answers):
            raise damaged(f"a script answered {type(reply).__name__}")
        return reply

    def by_sha1(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """The command for a server that knows the script."""
        return ("EVALSHA", self.sha1, len(keys), *keys, *arguments)

    def in_full(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """The command for a server that does not know the script; it knows it afterwards."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)


def load(package: str, name: str, answers: Any) -> Script:
    """Reads lua/`name`.lua of a package; `answers` is a type, or a union of those, that its reply must have."""
    source = resources.files(package).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest(), answers)
