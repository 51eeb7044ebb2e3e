"""TLS to Redis as the chart writes it: a private authority, and a certificate that Redis asks its clients for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import find_redis_server
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_users

from tests import absent
from tests.gateway.support.tokens import Certificates
from tests.helm.rendering import Manifest, example, merged, only, pod_specs, render, settings_in
from tests.store.redis_nodes import until

ALICE = UserKey("shop", "alice")


def url_of(files: Path, port: int, tls: Manifest) -> str:
    """The URL that the chart renders, with this machine's folders in place of the mounts that the chart renders too."""
    manifests = render(merged(example("production"), {"redis": {"username": "", "tls": tls}}))
    url = settings_in(manifests)["PAPA_REDIS__URL"]
    spec = only(manifests, "Deployment", "-gateway")["spec"]["template"]["spec"]
    return on_this_machine(url, spec, files).replace("papa-redis.example.com:6380", f"localhost:{port}")


def on_this_machine(text: str, spec: Manifest, files: Path) -> str:
    """The text with folders below `files` in place of a pod's mounts."""
    secrets = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    for mount in sorted(spec["containers"][0]["volumeMounts"], key=lambda each: -len(each["mountPath"])):
        if mount["name"] in secrets:
            text = text.replace(mount["mountPath"], str(files / secrets[mount["name"]]))
    assert "/etc/papa" not in text
    return text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets as folders: `ours` has signed the server, `caller` is a client of it, the others are strangers."""
    folder = tmp_path_factory.mktemp("secrets")
    for secret in ("ours", "theirs", "server", "caller", "stranger"):
        (folder / secret).mkdir()
    for owner, peers in (("ours", ("server", "caller")), ("theirs", ("stranger",))):
        authority = Certificates(folder, owner)
        (folder / owner / "ca.crt").write_bytes(authority.ca.read_bytes())
        for peer in peers:
            certificate, key = authority.issue(peer)
            certificate.rename(folder / peer / "tls.crt")
            key.rename(folder / peer / "tls.key")
    return folder


@pytest.fixture(scope="module")
def port(files: Path) -> Iterator[int]:
    """Of a redis-server that speaks TLS alone, and asks for a certificate."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    # The one on PATH first: the one in the wheel, which is newer, is built without TLS.
    server_path = shutil.which("redis-server") or find_redis_server()
    command = [
        server_path, "--port", "0", "--tls-port", str(free), "--bind", "127.0.0.1", "--save", "",
        "--tls-cert-file", str(files / "server" / "tls.crt"), "--tls-key-file", str(files / "server" / "tls.key"),
        "--tls-ca-cert-file", str(files / "ours" / "ca.crt"), "--tls-auth-clients", "yes",
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if "Ready to accept connections" in line:
                break
        else:
            absent.skip("this redis-server was built without TLS", absent.SYSTEM_PACKAGES)
        yield free
    finally:
        server.kill()
        server.communicate()


async def ask(url: str) -> None:
    users = open_users(Settings(redis=RedisSettings(url=url)))
    try:
        await users.current(ALICE)
    finally:
        await users.close()


async def test_a_certificate_of_the_authority_opens_it(files: Path, port: int) -> None:
    await ask(url_of(files, port, {"caSecret": "ours", "certificateSecret": "caller"}))


@pytest.mark.parametrize(
    "tls",
    [
        pytest.param({"caSecret": "ours"}, id="no certificate is shown"),
        pytest.param({"caSecret": "ours", "certificateSecret": "stranger"}, id="a stranger's is shown"),
        pytest.param({"caSecret": "theirs", "certificateSecret": "caller"}, id="another authority is trusted"),
        pytest.param({"caSecret": "", "certificateSecret": "caller"}, id="public authorities are trusted"),
    ],
)
async def test_nothing_else_does(files: Path, port: int, tls: Manifest) -> None:
    with pytest.raises(StorageUnavailable):
        await ask(url_of(files, port, tls))


@pytest.mark.ray
@pytest.mark.parametrize("certificate", ["caller", "stranger", ""])
def test_rays_own_redis_is_opened_by_the_same_certificate(
    files: Path, port: int, certificate: str, tmp_path: Path
) -> None:
    """Ray's store of its state, started alone with the variables of the chart."""
    tls = {"caSecret": "ours", "certificateSecret": certificate}
    spec = pod_specs(render(merged(example("production"), {"gcsRedis": {"tls": tls}})))["demo-papa head"]
    given = {each["name"]: each.get("value", "") for each in spec["containers"][0]["env"]}
    variables = {name: on_this_machine(value, spec, files) for name, value in given.items() if "RAY_REDIS_C" in name}
    log = tmp_path / "log"
    with log.open("wb") as output:
        store = subprocess.Popen(
            [
                Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server", "--redis_address=localhost",
                f"--redis_port={port}", "--redis_enable_ssl=true", "--gcs_server_port=0",
                "--node-ip-address=127.0.0.1", "--session-name=test", f"--log_dir={tmp_path}", "--config_list=e30=",
            ],
            env={**os.environ, **variables, "RAY_gcs_storage": "redis"}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        until(lambda: store.poll() is not None or b"GcsServer server started" in _logged(tmp_path))
        assert (store.poll() is None) == (certificate == "caller"), log.read_text()
    finally:
        store.kill()
        store.wait()


def _logged(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
