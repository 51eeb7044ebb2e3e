"""Requests that the playground's own page never sends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.attack.result import Attack, Found, Target, counted

BODIES = (
    b"", b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"user": 7, "count": 1}',
    b'{"user": "a", "count": 1e400}', b'{"user": "a", "count": ' + b"9" * 5_000 + b"}", b'{"user": "a", "count": true}',
    b'{"user": "\\ud800", "count": 1}', b'{"user": "a", "ratings": [null]}',
    b'{"user": "a", "ratings": [{"grade": NaN}]}',
    b'{"user": "a", "count": 1, "seed": "\\u0661e9"}', b'{"user": "a", "revision": {}}', b'{"user": "\\u001b[31m"}',
)  # fmt: skip
PATHS = ("generate", "feedback", "rollback", "reset", "delete", "judge")


@asynccontextmanager
async def playground(target: Target) -> AsyncIterator[str]:
    """The URL of a playground in front of the gateway, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "papa_serving.cli.main", "playground", "--address", target.address, "--tenant", "shop",
        "--port", "0", "--json",
        env={**os.environ, "PAPA_CLIENT__TOKEN": target.token_of("shop"), "PAPA_DATA_DIR": str(target.folder)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), 60))["playground"]
    finally:
        process.kill()
        await process.wait()


async def odd_bodies(target: Target, scale: float) -> Found:
    """Each of them to each endpoint: a refusal in words, never a 500."""
    async with playground(target) as base:
        codes = [await asyncio.to_thread(_asked, f"{base}/api/{path}", body) for path in PATHS for body in BODIES]
    return Found(
        not any(code >= 500 and code not in (503, 504) for code in codes), counted([str(code) for code in codes])
    )


OWN = {"content-type": "application/json", "x-papa-playground": "1"}
BODY = b'{"user": "alice"}'
FOREIGN: dict[str, tuple[str, bytes | None, dict[str, str]]] = {
    "a name that resolves to loopback": ("user?user=alice", None, {"host": "evil.example"}),
    "such a name with our port": ("delete", BODY, {**OWN, "host": "evil.example:8484"}),
    "a host that begins like ours": ("delete", BODY, {**OWN, "host": "127.0.0.1.evil.example"}),
    "a form of another page": ("delete", BODY, {"content-type": "text/plain", "origin": "https://evil.example"}),
    "a script of another page": ("delete", BODY, {**OWN, "origin": "https://evil.example"}),
    "a sandboxed page": ("delete", BODY, {**OWN, "origin": "null"}),
    "another port of this machine": ("delete", BODY, {**OWN, "origin": "http://127.0.0.1:1"}),
    "a picture of another page": ("user?user=alice", None, {"sec-fetch-site": "cross-site"}),
    "an event stream of another page": ("watch?user=alice", None, {"sec-fetch-site": "cross-site"}),
    "a body of 10 MB": ("generate", b" " * 10_000_000, OWN),
    "a path out of the static files": ("../static/../../application.py", None, {}),
    "the same, encoded": ("..%2fstatic%2f..%2f..%2fapplication.py", None, {}),
}


async def foreign_pages(target: Target, scale: float) -> Found:
    """Requests that a page of another origin, or a name that was rebound to loopback, can bring a browser to send."""
    async with playground(target) as base:
        await asyncio.to_thread(_asked, f"{base}/api/feedback", b"{}")
        answers = {
            name: await asyncio.to_thread(_asked, f"{base}/api/{path}", body, headers)
            for name, (path, body, headers) in FOREIGN.items()
        }
    let_in = [name for name, code in answers.items() if code not in (403, 404, 413)]
    return Found(not let_in, "; ".join([counted(list(map(str, answers.values()))), *(f"let in: {n}" for n in let_in)]))


def _asked(url: str, body: bytes | None, headers: dict[str, str] = OWN) -> int:
    request = urllib.request.Request(url, body, headers)
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except urllib.error.URLError as failure:
            if isinstance(failure.reason, ConnectionResetError | BrokenPipeError):
                return 413  # refused before the whole body was sent
            # It says its address a moment before it listens.
            if not isinstance(failure.reason, ConnectionRefusedError):
                raise
            time.sleep(0.2)
    raise AssertionError(f"nobody listens at {url}")


ATTACKS = (
    Attack("odd bodies to the playground", odd_bodies),
    Attack("foreign pages and names at the playground", foreign_pages),
)
