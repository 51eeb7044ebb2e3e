"""Every check says what it found, and how to mend what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from pathlib import Path

from papa_serving.contracts.items import BackboneInfo
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_items
from papa_serving.store.records import short_hash

from papa.denoiser import load_denoiser
from tests.cli.conftest import Papa
from tests.papa.pipelines import diffusion_transformer, saved

PORTS = ("gateway.port", "playground.port", "metrics.port", "ray.serve_grpc_port")
FREE = [part for port in PORTS for part in ("--set", f"{port}=0")]


def checks(papa: Papa, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    ended = papa("doctor", "--json", *FREE, *arguments)
    return ended.code, {finding["check"]: finding for finding in ended.json}


def test_a_machine_that_is_fit(papa: Papa) -> None:
    code, found = checks(papa)
    assert code == 0, found
    assert set(found) == {
        "python", "gateway port", "metrics port", "playground port", "ray port", "redis", "disk", "store",
        "backbone", "torch device", "backbone hash",
    }  # fmt: skip
    assert re.search(r"embedded, version \d+\.\d+.*append-only file, fsync everysec", found["redis"]["found"])
    assert re.fullmatch("2-[0-9a-f]{12}", found["backbone hash"]["found"])


def test_a_transformer_has_a_hash_too(papa: Papa, tmp_path: Path) -> None:
    """Which layers are adapted depends on the class of the network; the hash does not."""
    backbone = saved(diffusion_transformer(), tmp_path / "backbone")
    code, found = checks(papa, "--set", f"backbone={backbone}")
    assert code == 0, found
    assert found["backbone hash"]["found"] == short_hash(load_denoiser(backbone).backbone_hash)


def test_revisions_of_another_backbone_are_noticed_before_the_trainer_refuses_them(papa: Papa) -> None:
    folder = Path("papa-data/revisions/ab/abcd/000001-aa")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"backbone": "b" * 64}))
    code, found = checks(papa)
    assert code == 1
    assert "were made for the backbone bbbbbbbbbbbb" in found["backbone hash"]["found"]
    assert "--backbone" in found["backbone hash"]["hint"]


def test_a_store_of_an_earlier_release_is_named_with_the_way_out(papa: Papa) -> None:
    """Of the folder of a stopped `papa up`: its Redis names the backbone by a hash of the former version."""
    info = BackboneInfo("a" * 64, "fashion_mnist", (1, 28, 28))

    async def announce() -> None:
        items = open_items(Settings(redis=RedisSettings(url=redis.url)))
        await items.publish_backbone(info)
        await items.close()

    with RedisProcess(Path("papa-data/redis")) as redis:
        asyncio.run(announce())
    code, found = checks(papa, "--set", "backbone=nothing")  # so that none is loaded
    assert code == 1
    assert found["store"]["verdict"] == "error"
    assert "run papa store rehash once" in found["store"]["found"]
    assert found["redis"]["verdict"] == "ok"


def test_each_fault_has_a_way_out(papa: Papa) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        code, found = checks(
            papa,
            *("--set", f"gateway.port={port}"),
            *("--set", "redis.url=redis://127.0.0.1:1"),
            *("--set", "backbone=nothing"),
            *("--set", "generator.device=abacus"),
        )
    assert code == 1
    bad = {check for check, finding in found.items() if finding["verdict"] == "error"}
    assert bad == {"gateway port", "redis", "backbone", "torch device"}
    assert all(found[check]["hint"] for check in bad)
    assert str(port) in found["gateway port"]["found"]


def test_the_ports_of_the_service_that_runs_here_are_no_fault(papa: Papa) -> None:
    with InstanceLock(Path("papa-data")), socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        code, found = checks(papa, "--set", f"gateway.port={port}")
    assert code == 0, found
    assert found["service"]["found"].endswith(f"(process {os.getpid()})")
    assert found["gateway port"]["found"] == f"127.0.0.1:{port}, of the service that runs here"


def test_for_people_the_hint_follows_its_finding(papa: Papa) -> None:
    ended = papa("doctor", *FREE, "--set", "backbone=nothing")
    assert ended.code == 1
    lines = ended.out.splitlines()
    index = next(index for index, line in enumerate(lines) if "no backbone 'nothing'" in line)
    assert "papa backbone train" in lines[index + 1]
