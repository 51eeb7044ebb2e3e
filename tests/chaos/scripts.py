"""The product's Lua scripts as the processes of a schedule run them: Redis' clock is read through `stepped`.

There is no libfaketime here, and redis-server reads its clock by itself; so the step is injected where the scripts
read it. Ids of stream entries keep the real clock (which Redis never lets go back anyway).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from papa_serving.store import redis_scripts
from papa_serving.store.redis_scripts import Script

CLOCK_KEY = "chaos:clock"
_REAL = "redis.call('TIME')"
_STEPPED = (
    f"(function() local t = {_REAL}; t[1] = t[1] + (tonumber(redis.call('GET', '{CLOCK_KEY}')) or 0); return t end)()"
)
_load = redis_scripts.load


def rewritten(script: Script, change: Callable[[str], str]) -> Script:
    """The script with another source; a ValueError when the change changes nothing."""
    before = script.source.decode()
    after = change(before)
    if after == before:
        raise ValueError("nothing was changed")
    sha1 = hashlib.sha1(after.encode(), usedforsecurity=False).hexdigest()
    return Script(after.encode(), sha1, script.answers)


def _stepped(package: str, name: str, answers: Any) -> Script:
    script = _load(package, name, answers)
    return rewritten(script, lambda lua: lua.replace(_REAL, _STEPPED)) if _REAL.encode() in script.source else script


def step_every_script() -> None:
    """Call it before the modules that load scripts are imported."""
    redis_scripts.load = _stepped
