"""Addresses to listen on: IPv6 with and without brackets, and those that strangers reach."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from papa_serving.settings import GatewaySettings, GeneratorSettings, PlaygroundSettings
from papa_serving.settings.exposure import exposed_engine, exposed_gateway, exposed_playground
from pydantic import SecretStr

from tests.gateway.support.process import Process, scraped
from tests.gateway.support.service import Service


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
async def test_gateway_and_health_port(unstarted: Service, host: str) -> None:
    await unstarted.start(host=host, health_port=0, insecure=host.strip("[]") == "::")
    for address in (unstarted.gateway.address, unstarted.gateway.health_address):
        bound, _, port = address.rpartition(":")
        assert bound == f"[{host.strip('[]')}]"
        async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_process_and_its_metrics(tmp_path: Path) -> None:
    async with Process(tmp_path, PAPA_GATEWAY__HOST="::1", PAPA_METRICS__HOST="[::1]") as process:
        ready = await process.ready()
        assert ready["grpc"].startswith("[::1]:")
        assert "papa_build_info" in await asyncio.to_thread(scraped, ready["metrics"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "papa.example.com", "0", "127.0.0.1.example.com"])
def test_others_may_not_call_where_nobody_is_asked(host: str) -> None:
    with pytest.raises(ValueError, match=r"gateway\.auth\.mode .* --insecure"):
        exposed_gateway(GatewaySettings(host=host))
    assert "INSECURE" in exposed_gateway(GatewaySettings(host=host, insecure=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.8.8"])
def test_this_machine_may_always_call(host: str) -> None:
    assert not exposed_gateway(GatewaySettings(host=host))
    assert not exposed_gateway(GatewaySettings(host=host, insecure=True))
    assert not exposed_playground(PlaygroundSettings(host=host))


def test_whoever_asks_may_listen_everywhere() -> None:
    pair = {"certificate": "c.pem", "key": "k.pem"}
    for asking in ({"auth": {"mode": "keys", "keys_file": "keys.toml"}}, {"tls": {**pair, "client_ca": "ca.pem"}}):
        assert not exposed_gateway(GatewaySettings(host="0.0.0.0", **asking))
    with pytest.raises(ValueError, match="nobody is asked"):
        exposed_gateway(GatewaySettings(host="0.0.0.0", tls=pair))


def test_the_playground_has_no_login() -> None:
    with pytest.raises(ValueError, match=r"playground\.host 0\.0\.0\.0 .* --insecure"):
        exposed_playground(PlaygroundSettings(host="0.0.0.0"))
    assert "INSECURE" in exposed_playground(PlaygroundSettings(host="0.0.0.0", insecure=True))


def test_the_port_of_the_engine_needs_a_token() -> None:
    for token in (None, SecretStr(" ")):
        with pytest.raises(ValueError, match=r"generator\.token .* generator\.insecure"):
            exposed_engine(GeneratorSettings(token=token))
    assert "INSECURE" in exposed_engine(GeneratorSettings(insecure=True))
    assert not exposed_engine(GeneratorSettings(token=SecretStr("t")))


async def test_a_process_that_strangers_could_use_does_not_start(tmp_path: Path) -> None:
    async with Process(tmp_path, PAPA_GATEWAY__HOST="0.0.0.0") as process:
        code, out, log = await process.ended()
    assert (code, out) == (1, "")
    assert [entry["level"] for entry in log] == ["error"]
    assert "gateway.auth.mode" in log[0]["message"] and "--insecure" in log[0]["message"]


async def test_a_process_that_strangers_may_use_says_so(tmp_path: Path) -> None:
    async with Process(tmp_path, PAPA_GATEWAY__HOST="0.0.0.0", PAPA_GATEWAY__INSECURE="true") as process:
        assert (await process.ready())["grpc"].startswith("0.0.0.0:")
        _, _, log = await process.stop()
    assert [entry["message"] for entry in log if "INSECURE" in entry["message"] and entry["level"] == "warning"]
