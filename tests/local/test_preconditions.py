"""Checks before the start: ports, the folder's lock, the backbone, combinations of settings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from papa_serving.contracts.channels import target_of
from papa_serving.local.backbone_check import find_backbone, oracle_of, takes_prompt
from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.placement import check_combination, with_places, with_ports
from papa_serving.local.ports import check_generator, claim_port, reachable
from papa_serving.settings import GatewaySettings, GeneratorSettings, RaySettings, RedisSettings, Settings
from papa_serving.settings.addresses import host_port
from papa_serving.settings.variables import settings_environment
from pydantic import SecretStr

from papa.denoiser import BackboneRefused, load_denoiser
from tests.papa.pipelines import saved, stable_diffusion
from tests.papa.support import edit


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def test_a_port_in_use_is_named_with_the_way_out(taken_port: int) -> None:
    with pytest.raises(Failure) as refused:
        claim_port("127.0.0.1", taken_port, "gateway.port")
    assert f"port {taken_port} of 127.0.0.1" in refused.value.message
    assert "PAPA_GATEWAY__PORT=0" in refused.value.hint


def test_port_zero_becomes_a_free_one() -> None:
    port = claim_port("127.0.0.1", 0, "gateway.port")
    assert claim_port("127.0.0.1", port, "gateway.port") == port


def test_a_held_port_is_given_to_nobody_else_and_a_server_may_listen_there_again_and_again() -> None:
    with ExitStack() as held:
        port = claim_port("127.0.0.1", 0, "gateway.port", held)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port)).close()
            server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
            assert server.add_insecure_port(f"127.0.0.1:{port}") == port
            server.start()
            server.stop(None).wait()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("::1", "[::1]:5"), ("[::1]", "[::1]:5"), ("127.0.0.1", "127.0.0.1:5"), ("localhost", "localhost:5")],
)
def test_an_address_is_written_as_grpc_and_browsers_take_it(host: str, expected: str) -> None:
    settings = Settings(gateway={"host": host}, metrics={"host": host}, playground={"host": host})
    assert {each.host for each in (settings.gateway, settings.metrics, settings.playground)} == {host.strip("[]")}
    assert host_port(host, 5) == reachable(host, 5) == expected
    assert target_of(expected) == (expected, False)


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_ports_of_ipv6_are_claimed(host: str) -> None:
    settings = Settings(
        gateway={"host": host, "port": 0}, metrics={"host": host, "port": 0}, ray={"serve_grpc_port": 0}
    )
    with ExitStack() as held:
        placed = with_ports(settings, held)
        with socket.create_server((settings.gateway.host, placed.gateway.port), family=socket.AF_INET6):
            check_generator(reachable(settings.gateway.host, placed.gateway.port))


@pytest.mark.parametrize("addresses", [["::1"], ["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
def test_the_port_of_a_name_is_claimed_on_every_address_that_it_has(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    """A server may listen on any of them."""
    resolved = [found for each in addresses for found in socket.getaddrinfo(each, 0, type=socket.SOCK_STREAM)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_more: resolved)
    with ExitStack() as held:
        port = claim_port("a-name", 0, "gateway.port", held)
        for family, *_, address in resolved:
            with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
                other.bind((address[0], port))


def test_every_port_of_the_service_is_checked(taken_port: int) -> None:
    free = Settings(gateway={"port": 0}, metrics={"port": 0}, ray={"serve_grpc_port": 0})
    placed = with_ports(free)
    assert 0 not in (placed.gateway.port, placed.metrics.port, placed.ray.serve_grpc_port)
    assert placed.gateway.generator == f"127.0.0.1:{placed.ray.serve_grpc_port}"
    for section, field in (("gateway", "port"), ("metrics", "port"), ("ray", "serve_grpc_port")):
        changed = getattr(free, section).model_copy(update={field: taken_port})
        with pytest.raises(Failure, match=str(taken_port)):
            with_ports(free.model_copy(update={section: changed}))


def test_each_start_has_an_engine_token_of_its_own() -> None:
    free = Settings(gateway={"port": 0}, metrics={"port": 0}, playground={"port": 0}, ray={"serve_grpc_port": 0})
    tokens = {str(with_ports(free).generator.token.get_secret_value()) for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32
    given = free.model_copy(update={"generator": GeneratorSettings(token=SecretStr("given"))})
    assert with_ports(given).generator.token == SecretStr("given")


def test_a_second_service_on_one_folder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    refusal = f"already running on {tmp_path} .process {os.getpid()}."
    with InstanceLock(tmp_path), pytest.raises(Failure, match=refusal):
        InstanceLock(tmp_path).__enter__()
    with InstanceLock(tmp_path):
        pass


def test_the_lock_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from papa_serving.local.instance_lock import InstanceLock\n"
    program += "with InstanceLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Failure):
            InstanceLock(tmp_path).__enter__()
        holder.kill()
    with InstanceLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot be written"):
        InstanceLock(tmp_path / "file" / "data").__enter__()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of words, that can be served."""
    return Path(saved(stable_diffusion(), tmp_path_factory.mktemp("pipeline")))


def test_a_backbone_is_a_shipped_name_a_folder_or_a_hub_id(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    assert find_backbone(str(pipeline)) == pipeline
    assert find_backbone("google/ddpm-cifar10-32") is None
    assert find_backbone("google/ddpm-cifar10-32@main") is None
    with pytest.raises(Failure, match="no backbone 'nothing'"):
        find_backbone("nothing")
    with pytest.raises(Failure, match="no diffusers folder"):
        find_backbone(str(tmp_path / "unet"))


def test_places_become_absolute(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(pipeline, "model")
    assert with_places(Settings(backbone="~/model")).backbone == str(tmp_path / "model")
    assert with_places(Settings(backbone="mnist")).backbone == "mnist"
    placed = with_places(Settings(data_dir="data", backbone="model"))
    assert placed.data_dir == tmp_path / "data"
    assert placed.store.path == tmp_path / "data" / "revisions"
    assert placed.backbone == str(tmp_path / "model")


def test_an_existing_ray_needs_an_existing_redis() -> None:
    with pytest.raises(Failure, match="Redis that its nodes reach"):
        check_combination(Settings(ray=RaySettings(address="10.0.0.1:6379")))
    redis, engine = RedisSettings(url="redis://r:6379"), GeneratorSettings(token=SecretStr("t"))
    check_combination(Settings(ray=RaySettings(address="10.0.0.1:6379"), redis=redis, generator=engine))
    with pytest.raises(Failure, match="needs a port for the generator"):
        check_combination(Settings(ray=RaySettings(address="10.0.0.1:6379", serve_grpc_port=0), redis=redis))


def test_an_existing_ray_with_another_port_needs_the_gateway_to_know_it() -> None:
    settings = Settings(ray={"address": "10.0.0.1:6379", "serve_grpc_port": 9100}, redis={"url": "redis://r:6379"})
    with pytest.raises(Failure, match=r"127\.0\.0\.1:9000, but ray\.serve_grpc_port is 9100") as refused:
        check_combination(settings)
    assert "gateway.generator=HEAD:9100" in refused.value.hint
    there = {"gateway": GatewaySettings(generator="10.0.0.1:9100"), "generator": GeneratorSettings(insecure=True)}
    check_combination(settings.model_copy(update=there))


def test_a_generator_that_is_not_where_the_gateway_looks_is_told_at_once(taken_port: int) -> None:
    check_generator(f"127.0.0.1:{taken_port}")
    for address in (f"127.0.0.1:{claim_port('127.0.0.1', 0, '')}", "nowhere"):
        with pytest.raises(Failure, match=f"no generator listens at {address}") as refused:
            check_generator(address, seconds=0.3)
        assert "gateway.generator" in refused.value.hint


def test_a_server_on_all_interfaces_is_reached_over_loopback() -> None:
    assert reachable("0.0.0.0", 5) == reachable("", 5) == "127.0.0.1:5"
    assert reachable("::", 5) == reachable("::1", 5) == "[::1]:5"
    assert reachable("10.1.2.3", 5) == "10.1.2.3:5"


def test_settings_travel_through_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        redis={"url": "redis://h:1", "password": "s e c r e t", "require_persistence": False},
        trainer={"min_labels": 3, "gate": {"max_norm": 2.5}},
    )
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"_class_name": "FluxFillPipeline"}, "is a FluxFillPipeline, which cannot be served"),
        ("unet/config.json", {"_class_name": "UNetSpatioTemporalConditionModel"}, "supported is UNet2DConditionModel"),
        ("text_encoder/config.json", {"architectures": ["XLMRobertaModel"]}, "supported is CLIPTextModel"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v-prediction"}, "epsilon, v_prediction, sample"),
        ("unet/config.json", {"in_channels": 9}, "models that edit a picture"),
    ],
)
def test_a_pipeline_that_cannot_be_served_is_told_before_anything_starts(
    file: str, change: dict[str, object], message: str, pipeline: Path, tmp_path: Path
) -> None:
    """The check is the loader's own and needs no torch."""
    spoilt = shutil.copytree(pipeline, tmp_path / "spoilt")
    edit(spoilt / file, **change)
    with pytest.raises(Failure, match=message) as refused:
        with_places(Settings(backbone=str(spoilt)))
    assert refused.value.hint
    assert "\n" not in refused.value.message
    with pytest.raises(BackboneRefused, match=message):
        load_denoiser(str(spoilt))


def test_a_tokenizer_without_its_vocabulary_is_told_before_anything_starts(pipeline: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(pipeline, tmp_path / "spoilt")
    (spoilt / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(Failure, match=r"lacks vocab\.json and merges\.txt"):
        find_backbone(str(spoilt))


def test_the_check_before_the_start_needs_no_torch() -> None:
    program = "import sys; from papa_serving.local.backbone_check import find_backbone; find_backbone('mnist')\n"
    program += "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("backbone", "asked", "oracle"),
    [
        ("fashion_mnist", False, "fashion_mnist"),
        ("fashion_mnist_text", True, "fashion_mnist"),
        ("fashion_mnist_flow", True, "fashion_mnist"),
        ("mnist", False, "mnist"),
        ("stabilityai/stable-diffusion-xl-base-1.0", True, ""),
        ("nowhere", False, ""),
    ],
)
def test_what_the_playground_needs_to_know_of_a_backbone(backbone: str, asked: bool, oracle: str) -> None:
    assert (takes_prompt(backbone), oracle_of(backbone)) == (asked, oracle)
