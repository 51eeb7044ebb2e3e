"""IPv6 addresses to listen on, written with and without brackets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.gateway.support.process import Process, scraped
from tests.gateway.support.service import Service


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
async def test_gateway_and_health_port(unstarted: Service, host: str) -> None:
    await unstarted.start(host=host, health_port=0)
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
