"""The gateway's process: its one line, its logs and metrics, its ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from wsgiref.simple_server import make_server

import grpc
import psutil
import pytest
from papa_serving.gateway.__main__ import MAX_FILES
from papa_serving.gateway.exposition import MAX_SCRAPES, _Scrapes
from papa_serving.stubs.serving.v1 import generation_pb2, generation_pb2_grpc, types_pb2, user_pb2, user_pb2_grpc
from prometheus_client import make_wsgi_app

from tests.gateway.support.fake_engine import FakeEngine, done, items, wait
from tests.gateway.support.process import ROOT, Process, scraped

ALICE = types_pb2.User(user="alice")


async def test_a_replaced_token_of_the_engine_is_shown_to_it(tmp_path: Path) -> None:
    engine, token = FakeEngine(), tmp_path / "token"
    token.write_text("old other\n")
    await engine.start()
    environment = {"PAPA_GATEWAY__GENERATOR": f"127.0.0.1:{engine.port}", "PAPA_GENERATOR__TOKEN_FILE": str(token)}
    request = generation_pb2.GenerateRequest(user=ALICE, count=1)
    async with Process(tmp_path, **environment) as process:
        ready = await process.ready()
        async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            await stub.Generate(request)
            token.write_text("new\nold\n")
            async with asyncio.timeout(30):
                while engine.metadata[-1]["authorization"] != "Bearer new":
                    await stub.Generate(request)
        await process.stop()
    await engine.die()
    assert engine.metadata[0]["authorization"] == "Bearer old"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_life(tmp_path: Path, shared: bool) -> None:
    """Ready, answers, is scraped, drains while a generation runs, ends with 0; every log line is JSON."""
    engine, gate = FakeEngine(), asyncio.Event()
    await engine.start()
    engine.scripts = [[items(0), wait(gate), items(1), done()]]
    environment = {"PAPA_GATEWAY__GENERATOR": f"127.0.0.1:{engine.port}"}
    if shared:
        (tmp_path / "metrics").mkdir()
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "metrics")
    async with Process(tmp_path, **environment) as process:
        ready = await process.ready()
        assert (ready["message"], ready["level"]) == ("ready", "info")
        async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="storage does not answer"):
                await user_pb2_grpc.UserServiceStub(channel).GetUser(
                    user_pb2.GetUserRequest(user=ALICE), metadata=(("x-request-id", "order-20"),)
                )
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            stream = aiter(stub.StreamGenerate(generation_pb2.StreamGenerateRequest(user=ALICE, count=2)))
            await anext(stream)
            metrics = await asyncio.to_thread(scraped, ready["metrics"])
            assert 'papa_rpc_handled_total{code="UNAVAILABLE",method="UserService/GetUser"} 1.0' in metrics
            assert "papa_build_info" in metrics
            stopping = asyncio.create_task(process.stop())
            await asyncio.sleep(0.3)
            gate.set()
            assert len([message async for message in stream]) == 2
        code, out, logs = await stopping
    await engine.die()
    assert (code, out) == (0, ""), "nothing but the ready line on standard output"
    messages = [line["message"] for line in logs]
    assert messages[-2:] == ["draining", "stopped"]
    warned = next(line for line in logs if line.get("request_id") == "order-20")
    assert warned["reason"] == "STORAGE_UNAVAILABLE"
    assert "127.0.0.1:1" in warned["message"], "the operator learns which storage"
    assert not list((tmp_path / "metrics").glob("gauge_live*")), "what a dead process was doing is not counted"


async def test_what_a_killed_process_was_doing_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    likes = "FEEDBACK_LABELS.labels('like', '1-10').inc()"
    code = f"from papa_serving.metrics import *; PARTITIONS_OWNED.set(4); {likes}; print('set')"
    async with Process(tmp_path, **environment) as process:
        ready = await process.ready()
        pipe, child = asyncio.subprocess.PIPE, {**os.environ, **environment}
        command = [sys.executable, "-c", f"{code}; input()"]
        other = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=child, stdin=pipe, stdout=pipe)
        assert other.stdout is not None
        await other.stdout.readline()
        assert "papa_partitions_owned 4.0" in await asyncio.to_thread(scraped, ready["metrics"])
        other.kill()
        await other.communicate()
        metrics = await asyncio.to_thread(scraped, ready["metrics"])
    assert "papa_partitions_owned 4.0" not in metrics
    assert 'papa_feedback_labels_total{cohort="1-10",label="like"} 1.0' in metrics, "what it has done stays"


async def test_ctrl_c_ends_it_as_well(tmp_path: Path) -> None:
    async with Process(tmp_path) as process:
        await process.ready()
        code, _, logs = await process.stop(signal.SIGINT)
    assert (code, logs[-1]["message"]) == (0, "stopped")


@pytest.mark.parametrize("section", ["GATEWAY", "METRICS"])
async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, section: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with Process(tmp_path, **{f"PAPA_{section}__PORT": str(port)}) as process:
            code, out, logs = await process.ended()
    assert (code, out) == (1, "")
    errors = [line for line in logs if line["level"] == "error"]
    assert len(errors) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in errors[0]["message"]
    assert "exception" not in errors[0]


async def test_two_gateways_do_not_share_a_port_silently(tmp_path: Path) -> None:
    async with Process(tmp_path) as first:
        port = (await first.ready())["grpc"].rpartition(":")[2]
        async with Process(tmp_path, PAPA_GATEWAY__PORT=port) as second:
            assert (await second.ended())[0] == 1


async def test_a_url_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    async with Process(tmp_path, PAPA_REDIS__URL="") as process:
        code, _, logs = await process.ended()
    assert code == 1
    assert [line["level"] for line in logs] == ["error"]
    assert "redis.url is empty" in logs[0]["message"]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("papa_serving.gateway.__main__", ("torch", "ray", "diffusers", "papa")),
        (
            "papa_serving.client",
            ("torch", "ray", "papa", "pydantic", "redis", "numpy", "PIL", "prometheus_client", "typer"),
        ),
    ],
)
def test_an_import_brings_only_what_it_needs(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_crowd_of_connections_is_let_in_before_any_of_them_is_served() -> None:
    """Else a scraper's handshake is dropped among them, and tried again after seconds."""
    with make_server("127.0.0.1", 0, make_wsgi_app(), _Scrapes) as unserved, ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(socket.create_connection(unserved.server_address, timeout=5))


async def test_silent_connections_keep_nobody_from_the_metrics(tmp_path: Path) -> None:
    """They hold a bounded number of threads, and the gateway's file descriptors are many."""
    async with Process(tmp_path) as process:
        ready = await process.ready()
        host, _, port = ready["metrics"].rpartition(":")
        before = psutil.Process(process.process.pid).num_threads()
        silent = [socket.create_connection((host, int(port))) for _ in range(300)]
        for each in silent[::2]:
            each.sendall(b"GET /metrics HTTP/1.1\r\nx: ")
        assert "papa_build_info" in await asyncio.to_thread(scraped, ready["metrics"])
        seen = psutil.Process(process.process.pid)
        assert seen.num_threads() <= before + MAX_SCRAPES + 1
        soft, hard = seen.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, MAX_FILES)
        for each in silent:
            each.close()
        _, _, logs = await process.stop()
    assert all(line["level"] != "error" for line in logs if "metrics" in line["message"])
