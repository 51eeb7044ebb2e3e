"""A canary in every setting and file that holds a secret: it must come out nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import grpc
import pytest
from papa_serving.cli.app import run
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2, user_pb2_grpc

from tests.gateway.support.process import Process, scraped
from tests.gateway.support.tokens import Authority, bearer, jwks

CANARY = "canary-7f3a91-secret"
GET = user_pb2.GetUserRequest(user=types_pb2.User(user="alice"))


def environment(folder: Path, mode: str, authority: Authority) -> dict[str, str]:
    keys = folder / "keys.toml"
    keys.write_text(f"[[keys]]\nkey = '{CANARY}'\ntenant = 'shop'\nscopes = ['generate']\n")
    public = folder / "jwks.json"
    public.write_text(jwks(authority))
    return {
        "PAPA_LOG__LEVEL": "debug",
        "PAPA_REDIS__URL": f"redis://user:{CANARY}@127.0.0.1:1/0",
        "PAPA_REDIS__PASSWORD": CANARY,
        "PAPA_TRACING__ENABLED": "true",
        "PAPA_TRACING__ENDPOINT": "http://127.0.0.1:1",
        "PAPA_TRACING__HEADERS": f"authorization=Bearer {CANARY}",
        "PAPA_TRACING__TIMEOUT": "0.5",
        "PAPA_GATEWAY__AUTH__MODE": mode,
        "PAPA_GATEWAY__AUTH__KEYS_FILE": str(keys),
        "PAPA_GATEWAY__AUTH__JWKS": str(public),
        "PAPA_GATEWAY__AUTH__AUDIENCE": "papa",
        "PAPA_GATEWAY__AUTH__ISSUER": "https://authority.example",
    }


@pytest.mark.parametrize("mode", ["keys", "jwt"])
async def test_nothing_that_a_gateway_says_holds_a_secret(tmp_path: Path, mode: str) -> None:
    authority = Authority()
    good = CANARY if mode == "keys" else authority.token(marker=CANARY)
    async with Process(tmp_path, **environment(tmp_path, mode, authority)) as process:
        ready = await process.ready()
        said = [json.dumps(ready)]
        async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
            stub = user_pb2_grpc.UserServiceStub(channel)
            for token in (good, f"{CANARY}x", f"{good}x", Authority().token(marker=CANARY)):
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await stub.GetUser(GET, metadata=bearer(token))
                said += [failure.value.details() or "", str(failure.value.trailing_metadata())]
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
        keys = tmp_path / "keys.toml"
        keys.write_text(f"[[keys]]\nkey = '{CANARY}\n")
        said.append(scraped(ready["metrics"]))
        _, out, logs = await process.stop()
    said += [out, json.dumps(logs)]
    assert "storage does not answer" in "".join(said), "the good token has reached the storage"
    assert any(line["level"] == "warning" for line in logs), "there was something to say"
    for text in said:
        assert CANARY not in text
        assert good not in text


async def test_a_gateway_that_cannot_start_says_no_secret(tmp_path: Path) -> None:
    variables = environment(tmp_path, "keys", Authority())
    (tmp_path / "keys.toml").write_text(f"[[keys]]\nkey = '{CANARY}'\nsecret = '{CANARY}'\n")
    async with Process(tmp_path, **variables) as process:
        code, out, logs = await process.ended()
    assert code == 1
    assert [line["level"] for line in logs if line["level"] == "error"] == ["error"]
    assert CANARY not in out + json.dumps(logs)


@pytest.mark.parametrize(
    "arguments", [["config", "show"], ["config", "show", "--json"], ["health", "--timeout", "0.2"]]
)
def test_commands_show_no_secret(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path, "keys", Authority()).items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setitem(os.environ, "PAPA_CLIENT__TOKEN", CANARY)
    run(arguments)
    printed = capsys.readouterr()
    assert printed.out + printed.err
    assert CANARY not in printed.out + printed.err
