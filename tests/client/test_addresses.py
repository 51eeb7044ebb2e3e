"""Addresses as people write them, proxies that must not be asked, and the loop that an AsyncClient belongs to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from papa_serving.client import AsyncClient, Client, InvalidRequest, WrongEventLoop
from papa_serving.contracts.channels import channel_options, is_loopback, target_of

from tests.gateway.support.service import Service


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:50051", ("127.0.0.1:50051", False)),
        ("http://127.0.0.1:50051", ("127.0.0.1:50051", False)),
        ("HTTP://papa:1/", ("papa:1", False)),
        ("https://papa.example:443", ("papa.example:443", True)),
        ("http://[::1]:50051", ("[::1]:50051", False)),
        ("[::1]:50051", ("[::1]:50051", False)),
        ("dns:///papa:50051", ("dns:///papa:50051", False)),
        ("unix:/run/papa.sock", ("unix:/run/papa.sock", False)),
    ],
)
def test_an_address_becomes_a_target(address: str, target: tuple[str, bool]) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize(
    "address",
    [
        "",
        "papa",
        "papa:",
        "papa:http",
        "papa:99999",
        "::1:50051",
        "http://papa",
        "http://papa:1/path",
        "http://papa:1?x=1",
        "grpc://papa:1",
        "http://user:secret@papa:1",
        "pa pa:1",
    ],
)
def test_another_address_is_refused_in_words(address: str) -> None:
    with pytest.raises(InvalidRequest, match="address: must read") as refused:
        Client(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/papa.sock", True),
        ("ipv4:127.0.0.1:1", True),
        ("dns:///localhost:1", True),
        ("10.0.0.1:1", False),
        ("127.0.0.1.example:1", False),
        ("[2001:db8::1]:1", False),
        ("papa:1", False),
        ("shop.localhost.:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::ffff:10.0.0.1]:1", False),
        ("localhost.example:1", False),
    ],
)
def test_only_this_machine_is_reached_past_the_proxy(target: str, local: bool) -> None:
    assert is_loopback(target) is local
    assert (("grpc.enable_http_proxy", 0) in channel_options(target)) is local


@pytest.mark.parametrize("target", ["0.0.0.0:1", "[::]:1", "ipv6:[::]:1"])
def test_a_server_on_all_interfaces_is_called_past_the_proxy_and_is_not_on_loopback(target: str) -> None:
    assert channel_options(target) == (("grpc.enable_http_proxy", 0),)
    assert not is_loopback(target)


@pytest.fixture
def a_proxy_that_nobody_may_ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


async def test_a_proxy_of_the_environment_does_not_come_between(
    service: Service, a_proxy_that_nobody_may_ask: socket.socket
) -> None:
    address = f"http://{service.gateway.address}"
    async with AsyncClient(address) as client:
        assert (await client.get_user("alice")).likes == 0
    with Client(address) as blocking:
        assert (await asyncio.to_thread(blocking.get_user, "alice")).likes == 0
    with pytest.raises(BlockingIOError):
        a_proxy_that_nobody_may_ask.accept()


def test_an_asyncio_client_made_outside_a_loop_is_refused_in_words() -> None:
    with pytest.raises(WrongEventLoop, match="inside a coroutine"):
        AsyncClient("127.0.0.1:50051")


def test_an_asyncio_client_used_on_another_loop_is_refused_in_words() -> None:
    async def made() -> AsyncClient:
        return AsyncClient("127.0.0.1:50051")

    client = asyncio.run(made())

    async def used() -> None:
        await client.get_user("alice")

    with pytest.raises(WrongEventLoop, match="another event loop"):
        asyncio.run(used())
