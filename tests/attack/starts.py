"""Gateways of their own: configurations that must not start, credentials that must not pass, peers that lie."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
from papa_serving.stubs.serving.v1 import user_pb2

from tests.attack.result import Attack, Found, Target, answer_to, connected, counted, user
from tests.gateway.support.process import Process
from tests.gateway.support.tokens import AUDIENCE, ISSUER, Authority, Certificates, bearer, jwks
from tests.store.lying_server import LIES, LyingServer

GET_USER = "/papa.serving.v1.UserService/GetUser"


async def asked(address: str, metadata: tuple[tuple[str, str], ...] = (), patience: float = 10.0) -> str:
    async with connected(address) as channel:
        request = user_pb2.GetUserRequest(user=user("alice")).SerializeToString()
        return await answer_to(channel.unary_unary(GET_USER)(request, metadata=metadata, timeout=patience))


async def started(folder: Path, **settings: str) -> str:
    """ "" where it does not start, and ends with a message in its log; else its address."""
    async with Process(folder, **settings) as gateway:
        try:
            return str((await gateway.ready())["grpc"])
        except (json.JSONDecodeError, KeyError):
            code, _, log = await gateway.ended()
            assert code and any(entry["level"] == "error" for entry in log), log
            return ""


def with_keys(folder: Path, text: str) -> dict[str, str]:
    path = folder / "keys.toml"
    path.write_text(text)
    return {"PAPA_GATEWAY__AUTH__MODE": "keys", "PAPA_GATEWAY__AUTH__KEYS_FILE": str(path)}


async def careless_keys(target: Target, scale: float) -> Found:
    """A key for the user "", and one key for two tenants."""
    key = '[[keys]]\nkey = "at-least-sixteen-characters"\nscopes = ["admin"]\ntenant = '
    files = {"an empty user": f'{key}"a"\nuser = ""\n', "a key twice": f'{key}"a"\n{key}"b"\n'}
    with tempfile.TemporaryDirectory() as folder:
        running = [name for name, text in files.items() if await started(Path(folder), **with_keys(Path(folder), text))]
    return Found(not running, f"started with {', '.join(running)}" if running else "neither starts")


async def open_to_all(target: Target, scale: float) -> Found:
    """Every interface, and nobody is asked who calls, with and without TLS."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Certificates(Path(folder)).issue("gateway")
        tls = {"PAPA_GATEWAY__TLS__CERTIFICATE": str(certificate), "PAPA_GATEWAY__TLS__KEY": str(key)}
        hosts = [("0.0.0.0", {}), ("::", {}), ("0.0.0.0", tls)]
        running = [at for at, more in hosts if await started(Path(folder), PAPA_GATEWAY__HOST=at, **more)]
    return Found(not running, f"started at {', '.join(running)}" if running else "none starts")


@asynccontextmanager
async def with_jwt(authority: Authority, keys: str = "") -> AsyncIterator[str]:
    """The address of a gateway that trusts this authority."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jwks.json"
        path.write_text(jwks(authority))
        settings = {
            "PAPA_GATEWAY__AUTH__MODE": "jwt",
            "PAPA_GATEWAY__AUTH__JWKS": keys or str(path),
            "PAPA_GATEWAY__AUTH__AUDIENCE": AUDIENCE,
            "PAPA_GATEWAY__AUTH__ISSUER": ISSUER,
        }
        async with Process(Path(folder), **settings) as gateway:
            yield (await gateway.ready())["grpc"]


async def odd_claims(target: Target, scale: float) -> Found:
    """Properly signed claims that no authority should make."""
    authority = Authority()
    claims: list[dict[str, object]] = [
        {"exp": 10**400}, {"exp": -(10**400)}, {"exp": 1e308}, {"exp": "never"}, {"exp": [1]}, {"nbf": 10**400},
        {"iat": 10**400}, {"tenant": ["shop"]}, {"tenant": "\x1b[31m"}, {"scope": {"a": 1}}, {"user": 7}, {"user": ""},
    ]  # fmt: skip
    async with with_jwt(authority) as address:
        answers = [await asked(address, bearer(authority.token(**each))) for each in claims]
        answers += [await asked(address, bearer(authority.token(headers=each))) for each in ODD_HEADERS]
        answers += [await asked(address, bearer(each)) for each in (unsigned(authority), signed_with_public(authority))]
    fine = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    # An instant far in the past of "issued at" harms nobody: the storage that is not there may then be reached.
    return Found({each.split(" ")[0] for each in answers} <= fine | {"UNAVAILABLE"}, counted(answers))


ODD_HEADERS: list[dict[str, object]] = [
    {"kid": "../../../etc/passwd"}, {"kid": "x" * 4_000}, {"kid": "'; DROP"}, {"kid": "\x00"},
    {"crit": ["b64"], "b64": False},
]  # fmt: skip


def signed_with_public(authority: Authority) -> str:
    """The same claims, with the public key, which everybody has, as the secret of an HMAC."""
    body = authority.token().split(".")[1]
    head = encoded(json.dumps({"alg": "HS256", "kid": authority.kid}).encode())
    return f"{head}.{body}.{encoded(hmac.digest(authority.pem(), f'{head}.{body}'.encode(), 'sha256'))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(authority: Authority) -> str:
    """The same claims, with algorithm none."""
    body = authority.token().split(".")[1]
    head = encoded(json.dumps({"alg": "none", "kid": authority.kid}).encode())
    return f"{head}.{body}."


async def slow_authority(target: Target, scale: float) -> Found:
    """The authority's address answers a byte a second: a call must not wait for the whole."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(1.0)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port, authority = server.sockets[0].getsockname()[1], Authority()
    begun = time.monotonic()
    try:
        async with with_jwt(authority, f"http://127.0.0.1:{port}/keys") as address:
            answers = await asyncio.gather(*(asked(address, bearer(authority.token()), 30.0) for _ in range(3)))
    except (json.JSONDecodeError, KeyError):
        return Found(True, "a gateway with keys over plain http does not start")
    finally:
        server.close()
    seconds = time.monotonic() - begun
    return Found(
        "DEADLINE_EXCEEDED" not in {each.split(" ")[0] for each in answers},
        f"{counted(list(answers))} in {seconds:.0f} s",
    )


async def wrong_certificates(target: Target, scale: float) -> Found:
    """Mutual TLS: a stranger's certificate, none at all, and no TLS."""
    with tempfile.TemporaryDirectory() as folder:
        mine, strange = Certificates(Path(folder)), Certificates(Path(folder), "stranger")
        certificate, key = mine.issue("gateway")
        settings = {
            "PAPA_GATEWAY__TLS__CERTIFICATE": str(certificate),
            "PAPA_GATEWAY__TLS__KEY": str(key),
            "PAPA_GATEWAY__TLS__CLIENT_CA": str(mine.ca),
        }
        async with Process(Path(folder), **settings) as gateway:
            address = (await gateway.ready())["grpc"]
            trusted = await _with(address, mine, mine.issue("backend"))
            answers = [await _with(address, mine, strange.issue("foreign")), await _with(address, mine, None)]
            answers.append(await asked(address))
    # Its Redis is not there: UNAVAILABLE with a reason comes from behind the handshake, without one from before it.
    return Found(
        trusted == "UNAVAILABLE STORAGE_UNAVAILABLE" and set(answers) == {"UNAVAILABLE"}, counted([trusted, *answers])
    )


async def _with(address: str, authority: Certificates, pair: tuple[Path, Path] | None) -> str:
    chain, key = (path.read_bytes() for path in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, chain)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        request = user_pb2.GetUserRequest(user=user("alice")).SerializeToString()
        return await answer_to(channel.unary_unary(GET_USER)(request, timeout=10.0))


WITHOUT_END = {"numbers": (b"*2147483647\r\n", b":1\r\n" * 10_000), "a text": (b"$2147483647\r\n", bytes(2**16))}


async def lying_redis(target: Target, scale: float) -> Found:
    """A storage that answers wrong types, noise, halves of replies, and replies without end."""
    lies = [*((lie, b"") for lie in LIES.values()), *WITHOUT_END.values()]
    answers, grown = [], 0
    async with LyingServer(b"") as liar, with_redis(liar.url) as (address, process):
        before = process.memory_info().rss
        for liar.lie, liar.without_end in lies:
            answers += await asyncio.gather(*(asked(address, patience=20.0) for _ in range(4)))
            grown = max(grown, process.memory_info().rss - before)
    codes = {each.split(" ")[0] for each in answers}
    fine = codes <= {"UNAVAILABLE", "DATA_LOSS"} and grown < 512 * 2**20
    return Found(fine, f"{len(lies)} lies: {counted(answers)}; the gateway grew by {grown / 2**20:.0f} MiB")


@asynccontextmanager
async def with_redis(url: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PAPA_REDIS__URL": url, "PAPA_REDIS__SOCKET_TIMEOUT": "1"}
        async with Process(Path(folder), **settings) as gateway:
            yield (await gateway.ready())["grpc"], psutil.Process(gateway.process.pid)


ATTACKS = (
    Attack("static keys: an empty user, a key twice", careless_keys),
    Attack("every interface without credentials", open_to_all),
    Attack("tokens with odd claims, headers and signatures", odd_claims),
    Attack("an authority of a byte a second", slow_authority),
    Attack("mutual TLS with wrong certificates", wrong_certificates),
    Attack("a Redis that lies", lying_redis),
)
