"""The sources of keys: static keys of a file, and keys of an authority behind a URL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from papa_serving.contracts.errors import KeysUnavailable, Unauthenticated
from papa_serving.gateway.auth import keys
from papa_serving.gateway.auth.bearer import open_authenticator
from papa_serving.gateway.auth.identity import Scope
from papa_serving.gateway.auth.keys import LONGEST, PAUSE, RemoteKeys, parse_keys
from papa_serving.settings import AuthSettings
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2

from tests.gateway.support.service import Service, refusal
from tests.gateway.support.tokens import AUDIENCE, ISSUER, Authority, bearer, jwks

KEY = "a-key-for-development"
FILE = f"""
[[keys]]
key = "{KEY}"
tenant = "shop"
scopes = ["generate", "feedback"]

[[keys]]
key = "another-key-of-alice"
tenant = "shop"
user = "alice"
scopes = ["feedback"]
"""


def keys_file(folder: Path, text: str) -> AuthSettings:
    path = folder / "keys.toml"
    path.write_text(text)
    return AuthSettings(mode="keys", keys_file=path)


async def test_static_keys(unstarted: Service, tmp_path: Path) -> None:
    await unstarted.start(auth=keys_file(tmp_path, FILE))
    get = user_pb2.GetUserRequest(user=types_pb2.User(user="bob"))
    assert (await unstarted.user.GetUser(get, metadata=bearer(KEY))).state.user.tenant == "shop"
    refused = await refusal(unstarted.user.GetUser(get, metadata=bearer("another-key-of-alice")))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    delete = user_pb2.DeleteUserRequest(user=types_pb2.User(user="bob"))
    refused = await refusal(unstarted.user.DeleteUser(delete, metadata=bearer(KEY)))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    for wrong in ("no-key-of-this-file", KEY.upper(), KEY[:-1]):
        refused = await refusal(unstarted.user.GetUser(get, metadata=bearer(wrong)))
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys = 3",
        "[[keys]]\nkey = 'short'\ntenant = 'shop'\nscopes = ['admin']",
        f"[[keys]]\nkey = '{KEY}'\nscopes = ['admin']",
        f"[[keys]]\nkey = '{KEY}'\ntenant = 'shop'\nscopes = ['everything']",
        f"[[keys]]\nkey = '{KEY}'\ntenant = 'shop'\nscopes = []",
        f"[[keys]]\nkey = '{KEY}\n",
        f"[[keys]]\nkey = '{KEY}'\ntenant = 'shop'\nuser = ''\nscopes = ['admin']",
        f"[[keys]]\nkey = '{KEY}'\ntenant = 'shop'\nscopes = ['admin']\n" * 2,
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        open_authenticator(keys_file(tmp_path, text))
    assert KEY not in str(refused.value)
    assert "short" not in str(refused.value).replace("too_short", "")


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "keys"},
        {"mode": "jwt", "jwks": "keys.json"},
        {"mode": "jwt", "jwks": "keys.json", "audience": "papa"},
        {"algorithms": ("RS256", "none")},
        {"algorithms": ()},
    ],
)
def test_half_a_configuration_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs|worth nothing|at least 1"):
        AuthSettings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://authority.example/jwks", "ftp://x/y", "file:///etc/passwd"])
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        RemoteKeys(url, 300.0)


def test_kinds_of_keys() -> None:
    pairs = [(rsa.generate_private_key(65537, 2048), "RS256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")]
    for private, name in pairs:
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (key,) = parse_keys(pem)
        assert key.algorithm_name == name
        token = jwt.encode({"a": 1}, private, name)
        assert jwt.decode(token, key, algorithms=[name]) == {"a": 1}
    assert len(parse_keys(Authority().pem() + Authority().pem())) == 2
    for bad in (
        b"",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 3}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ):
        with pytest.raises(ValueError, match="it "):
            parse_keys(bad)


class Site(ThreadingHTTPServer):
    """An authority's web site; `answer` is what it publishes, None an error."""

    def __init__(self) -> None:
        self.answer: str | None = None
        self.location, self.asked = "", 0
        super().__init__(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/jwks"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(302 if self.server.location else 503 if self.server.answer is None else 200)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write((self.server.answer or "").encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_an_authority_is_asked_seldom_and_trusted_a_while(site: Site) -> None:
    clock, first, second = Clock(), Authority(), Authority("second")
    ring = RemoteKeys(site.url, 300.0, clock)
    with pytest.raises(KeysUnavailable) as failure:
        await ring.candidates("first")
    assert failure.value.retry_after is not None
    site.answer = jwks(first)
    with pytest.raises(KeysUnavailable):
        await ring.candidates("first")
    assert site.asked == 1, "not again within the pause"
    clock.now += PAUSE
    assert len(await ring.candidates("first")) == 1
    await asyncio.gather(*(ring.candidates(f"made up {number}") for number in range(100)))
    assert site.asked == 2, "strangers' names of keys do not reach the authority at will"
    site.answer = jwks(first, second)
    clock.now += PAUSE
    assert len(await ring.candidates("second")) == 1
    assert site.asked == 3
    site.answer = None
    clock.now += LONGEST - 1
    assert len(await ring.candidates("first")) == 1, "the authority may be away for a while"
    clock.now += PAUSE + 1
    with pytest.raises(KeysUnavailable):
        await ring.candidates("first")


async def test_an_authority_that_sends_elsewhere_is_not_followed(site: Site) -> None:
    site.answer, site.location = jwks(Authority()), "http://127.0.0.1:1/jwks"
    with pytest.raises(KeysUnavailable):
        await RemoteKeys(site.url, 300.0).candidates("first")
    assert site.asked == 1


async def test_tokens_of_an_authority_behind_a_url(site: Site) -> None:
    authority = Authority()
    site.answer = jwks(authority)
    settings = AuthSettings(mode="jwt", jwks=site.url, audience=AUDIENCE, issuer=ISSUER, scope_prefix="papa.")
    authenticate = open_authenticator(settings)
    token = authority.token(scope="openid papa.admin")
    identity = await authenticate(dict(bearer(token)))
    assert (identity.tenant, identity.user, identity.scopes) == ("shop", "", frozenset({Scope.ADMIN}))
    with pytest.raises(Unauthenticated):
        await authenticate({"authorization": f"Basic {token}"})


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
async def test_an_authority_that_drips_holds_nobody(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never meets the timeout of one read."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0.2)

    ended, gone = asyncio.Event(), asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        with suppress(ConnectionError):
            while not ended.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        gone.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        with pytest.raises(KeysUnavailable):
            await asyncio.wait_for(RemoteKeys(url, 300.0).candidates("first"), 60)
        ended.set()
        await gone.wait()
