"""A cluster that asks for another token, played by a server that refuses every call as Ray's does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from papa_serving.local.failure import Failure
from papa_serving.local.ray_cluster import existing_ray
from papa_serving.settings import RaySettings, Settings


class Refusing(grpc.GenericRpcHandler):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        self.shown += [str(each.value) for each in details.invocation_metadata if each.key == "authorization"]
        return grpc.unary_unary_rpc_method_handler(refuse)


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing or incorrect")
    return b""


@pytest.fixture
def refusing() -> Iterator[tuple[str, Refusing]]:
    handler, server = Refusing(), grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", handler
    server.stop(None)


def test_a_stale_token_is_shown_once_and_told_in_one_line(
    refusing: tuple[str, Refusing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address, handler = refusing
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("stale" * 10)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Failure, match="a token that it was not shown") as refused:
        existing_ray(Settings(ray=RaySettings(address=address))).__enter__()
    assert "RAY_AUTH_TOKEN_PATH" in refused.value.hint and "~/.ray/auth_token" in refused.value.hint
    assert set(handler.shown) == {f"Bearer {'stale' * 10}"}
    assert capfd.readouterr() == ("", "")
