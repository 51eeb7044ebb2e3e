"""Bodies that the playground's page never sends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request

from tests.attack.result import Attack, Found, Target, counted

BODIES = (
    b"", b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"user": 7, "count": 1}',
    b'{"user": "a", "count": 1e400}', b'{"user": "a", "count": ' + b"9" * 5_000 + b"}", b'{"user": "a", "count": true}',
    b'{"user": "\\ud800", "count": 1}', b'{"user": "a", "ratings": [null]}',
    b'{"user": "a", "ratings": [{"grade": NaN}]}',
    b'{"user": "a", "count": 1, "seed": "\\u0661e9"}', b'{"user": "a", "revision": {}}', b'{"user": "\\u001b[31m"}',
)  # fmt: skip
PATHS = ("generate", "feedback", "rollback", "reset", "delete", "judge")


async def odd_bodies(target: Target, scale: float) -> Found:
    """Each of them to each endpoint: a refusal in words, never a 500."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "papa_serving.cli.main", "playground", "--address", target.address, "--tenant", "shop",
        "--port", "0", "--json",
        env={**os.environ, "PAPA_CLIENT__TOKEN": target.token_of("shop"), "PAPA_DATA_DIR": str(target.folder)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        base = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))["playground"]
        codes = [await asyncio.to_thread(_posted, f"{base}/api/{path}", body) for path in PATHS for body in BODIES]
    finally:
        process.kill()
        await process.wait()
    return Found(
        not any(code >= 500 and code not in (503, 504) for code in codes), counted([str(code) for code in codes])
    )


def _posted(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, body, {"content-type": "application/json", "x-papa-playground": "1"})
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except urllib.error.URLError as failure:
            # It says its address a moment before it listens.
            if not isinstance(failure.reason, ConnectionRefusedError):
                raise
            time.sleep(0.2)
    raise AssertionError(f"nobody listens at {url}")


ATTACKS = (Attack("odd bodies to the playground", odd_bodies),)
