"""The commands of docs/operations.md: what needs no cluster is run, the rest held against what the chart renders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import kubernetes_validate
import pytest
import redis
import yaml
from papa_serving.contracts.identity import UserKey
from papa_serving.settings.variables import settings_environment

from tests import absent
from tests.docs.support import ROOT
from tests.docs.typed_cluster import TypedCluster
from tests.helm.rendering import CHART, Manifest, example, merged, pod_specs, render
from tests.store.support import Served, open_redis, redis_settings

PAGE = (ROOT / "docs" / "operations.md").read_text()
RECORDED = Path(__file__).parent / "recorded_command.sh"
NO_CLUSTER = ("kubectl", "helm", "docker", "sudo")
FILES = ("redis-ca.crt", "tls.crt", "tls.key", "ca.crt", "smoke.jwt", "collector-ca.crt", "revisions.tar", "likes.rdb")
"""That the page tells to have at hand, and what a backup has made."""
ALICE, BOB = UserKey("shop", "alice"), UserKey("shop", "bob")
ELSEWHERE = {"### One machine", "## Traces"}
"""Sections whose commands need no cluster: tests/docs/test_code_blocks.py, tests/deploy/test_compose.py."""


def sections() -> dict[str, str]:
    """The shell blocks of each part of the page, by its heading."""
    parts = re.split(r"^(#{2,4} .*)$", PAGE, flags=re.MULTILINE)[1:]
    blocks = {
        heading: "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {heading: code for heading, code in blocks.items() if code}


CLUSTER = "\n".join(code for heading, code in sections().items() if heading not in ELSEWHERE)
"""All that is typed against a cluster, in the order of the page."""


def against(server: Server, section: str) -> str:
    """The commands of a section, with this server in place of the one that the section names."""
    code, named = re.subn(r"^export REDIS=.*$", f'export REDIS="-s {server.socket}"', sections()[section], flags=re.M)
    assert named == 1, f"{section} names its Redis once"
    return code


class Shell:
    """A bash in which some programs are recorded, and with `play` also played."""

    def __init__(self, folder: Path, programs: tuple[str, ...], **variables: str) -> None:
        self._folder, self._record = folder, folder / "record"
        self._record.mkdir()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for name in programs:
            shutil.copy(RECORDED, bin_folder / name)
            (bin_folder / name).chmod(0o755)
        self._environment = {
            **os.environ,
            **variables,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "RECORD": str(self._record),
            "PYTHON": sys.executable,
        }

    def run(self, script: str) -> str:
        """What it prints; raises AssertionError where a command fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def calls(self) -> list[list[str]]:
        """What was recorded, in order."""
        calls = (self._record / "calls").read_text().split("\x1e")
        return [call.removesuffix("\x1f").split("\x1f") for call in calls if call]

    def given(self) -> str:
        """What was typed into `kubectl apply`."""
        return (self._record / "given").read_text()


def test_no_command_is_of_a_section_that_nobody_tries() -> None:
    assert set(sections()) >= ELSEWHERE
    assert {word[0] for word in _words(CLUSTER)} >= {"kubectl", "helm", "docker", "redis-cli", "papa"}


def _words(script: str) -> list[list[str]]:
    return [line.split() for line in script.splitlines() if line.strip()]


def test_from_an_empty_cluster_every_command_finds_what_it_names(tmp_path: Path) -> None:
    """In the order of the page: KubeRay, images, Secrets with the keys that pods read, objects of the chart."""
    for name in FILES:
        (tmp_path / name).write_text(name)
    (tmp_path / "helm").symlink_to(CHART.parent)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    programs = (*NO_CLUSTER, "redis-cli", "redis-server", "papa", "sleep")
    shell = Shell(tmp_path, programs, REDIS_DATA=str(tmp_path), REDIS_CONF="redis.conf")
    shell.run(CLUSTER)
    cluster = TypedCluster()
    for program, *words in shell.calls():
        match program:
            case "docker":
                cluster.docker(words, tmp_path)
            case "helm":
                cluster.helm(words, tmp_path)
            case "kubectl":
                cluster.kubectl(words)
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["papa/kuberay"]
    assert f">={cluster.operator}" == oldest, "the page installs what the chart needs at least"
    for name in ("production", "gpu"):
        cluster.check_references(example(name))
        assert images(render(example(name), "papa")) <= cluster.pushed, name
    assert not cluster.namespaces, "all is uninstalled in the end"


def images(manifests: list[Manifest]) -> set[str]:
    return {container["image"] for spec in pod_specs(manifests).values() for container in spec["containers"]}


def test_the_pod_that_restores_fits_the_chart(tmp_path: Path) -> None:
    (tmp_path / "revisions.tar").touch()
    restore = re.findall(r"^kubectl [^\n]*apply --filename - <<END\n.*?^END$", CLUSTER, re.DOTALL | re.MULTILINE)
    shell = Shell(tmp_path, NO_CLUSTER, REGISTRY="registry.example.com/recommender")
    shell.run("\n".join(restore))
    pod = yaml.safe_load(shell.given())
    kubernetes_validate.validate(pod, "1.30", strict=True)
    manifests = render(example("production"), "papa")
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    (volume,) = pod["spec"]["volumes"]
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
    (gateway,) = [each for each in manifests if each["kind"] == "Deployment"]
    spec = gateway["spec"]["template"]["spec"]
    assert pod["spec"]["containers"][0]["image"] == spec["containers"][0]["image"]
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == mounts["revisions"]
    assert {*pod["spec"]["securityContext"].items()} <= {
        (name, value) for name, value in spec["securityContext"].items() if not isinstance(value, dict)
    }


def test_trainers_stop_without_a_new_cluster_and_gateways_without_a_fight() -> None:
    """What the restore relies on: the operator of 1.6 knows it, and nothing sets the number of gateways back."""
    stopped = render(merged(example("production"), {"trainer": {"stopped": True}}), "papa")
    (service,) = [each for each in stopped if each["kind"] == "RayService"]
    applications = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert [each["name"] for each in applications] == ["generator"]
    (gateway,) = [each for each in stopped if each["kind"] == "Deployment"]
    assert "replicas" not in gateway["spec"]


class Server:
    """A redis-server as an operator runs it: configuration, user file and data in folders of its own.

    It is the one on PATH, as in the commands of the page: an older server does not read what a newer one wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.socket, self.configuration = folder / "data", folder / "s", folder / "redis.conf"
        self.data.mkdir()
        users = folder / "users.acl"
        users.write_text("user default on nopass ~* &* +@all\nuser papa on >old ~* &* +@all\n")
        lines = (
            f"dir {self.data}", "port 0", f"unixsocket {self.socket}", "appendonly yes", 'save ""', f"aclfile {users}",
            "maxmemory-policy noeviction", f"pidfile {folder / 'pid'}", f"logfile {folder / 'log'}",
        )  # fmt: skip
        self.configuration.write_text("\n".join(lines) + "\n")
        self.url = f"unix://{self.socket}"

    def start(self) -> None:
        subprocess.run(["redis-server", str(self.configuration), "--daemonize", "yes"], check=True)
        with redis.Redis.from_url(self.url) as client:
            for _ in range(400):
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            try:
                client.shutdown(nosave=True)
            except redis.ConnectionError:
                return


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    if shutil.which("redis-cli") is None or shutil.which("redis-server") is None:
        absent.skip("redis-cli or redis-server is not installed", absent.SYSTEM_PACKAGES)
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


async def test_a_backup_is_restored_by_the_commands_of_the_page(server: Server, tmp_path: Path) -> None:
    """Redis and volume are lost after more was learnt; afterwards each user is served what the backup holds."""
    settings = redis_settings(server.url, tmp_path)
    backend = open_redis(settings)
    place = Served(backend, redis.asyncio.Redis.from_url(server.url))
    revisions = backend.settings.store.path or backend.settings.data_dir / "revisions"
    shell = Shell(
        tmp_path, NO_CLUSTER, PLAY="1", REVISIONS=str(revisions), REGISTRY="registry",
        REDIS_DATA=str(server.data), REDIS_CONF=str(server.configuration), **settings_environment(backend.settings),
    )  # fmt: skip
    kept = {ALICE: await place.learn(ALICE, "a"), BOB: await place.learn(BOB, "b")}
    await backend.append(BOB, "waiting")
    shell.run(against(server, "## Back up and restore"))

    kept_files = {user: await place.revisions.get(user, each.name, "manifest.json") for user, each in kept.items()}
    await place.learn(ALICE, "learnt after the backup")
    await place.raw.flushall()
    shutil.rmtree(revisions)
    revisions.mkdir()
    assert await backend.users.current(BOB) is None
    await backend.close()
    await place.raw.aclose()

    shell.run(against(server, "### Restore"))
    restored = open_redis(settings)
    for user, revision in kept.items():
        current = await restored.users.current(user)
        assert current == revision
        assert await place.revisions.get(user, current.name, "manifest.json") == kept_files[user]
    waiting = await restored.pending(await restored.own(BOB), BOB)
    assert [event.event_id for event in waiting] == ["waiting"], "what was not learnt yet is learnt now"
    assert (await restored.users.get(ALICE)).pending == 0
    await restored.close()
    # And it is an append-only file again that the server starts from.
    server.stop()
    server.start()
    again = open_redis(settings)
    assert await again.users.current(ALICE) == kept[ALICE]
    await again.close()


async def test_a_check_that_finds_lost_revisions_fails_its_job(server: Server, tmp_path: Path) -> None:
    backend = open_redis(redis_settings(server.url, tmp_path))
    place = Served(backend, redis.asyncio.Redis.from_url(server.url))
    revisions = backend.settings.store.path or backend.settings.data_dir / "revisions"
    for event in ("a", "b"):
        await place.learn(ALICE, event)
    await place.raw.flushall()
    shell = Shell(tmp_path, NO_CLUSTER, PLAY="1", REVISIONS=str(revisions), **settings_environment(backend.settings))
    job = sections()["## Back up and restore"].partition("kubectl --namespace papa create job")
    with pytest.raises(AssertionError):
        shell.run(job[1] + job[2])
    assert "lost" in (tmp_path / "record" / "job").read_text()
    await backend.close()
    await place.raw.aclose()


def test_nothing_is_left_in_redis_whatever_the_items_are_called(server: Server, tmp_path: Path) -> None:
    """The ids of a catalogue's items are any printable text."""
    with redis.Redis.from_url(server.url) as client:
        for item in ("shoe 17", 'it\'s "red"', "a\\b", "*", "schön", "👟"):
            client.set(f"papa:{{c0}}:item:{item}", "")
        client.set("another:key", "")
        Shell(tmp_path, NO_CLUSTER).run(against(server, "## Uninstall"))
        assert client.keys() == [b"another:key"]


def test_two_passwords_are_good_while_one_is_rotated(server: Server, tmp_path: Path) -> None:
    """The commands of the page, up to where the old one goes, and then that."""
    rotation = sections()["### The password of a Redis"]
    lines = [line for line in rotation.splitlines() if line.startswith("redis-cli")]
    assert len(lines) == 3
    shell = Shell(tmp_path, NO_CLUSTER, REDIS=f"-s {server.socket}", OLD_PASSWORD="old", NEW_PASSWORD="new-one")

    def good(password: str) -> bool:
        try:
            with redis.Redis.from_url(server.url, username="papa", password=password) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return False

    shell.run(lines[0])
    assert good("old") and good("new-one")
    shell.run("\n".join(lines[1:]))
    assert not good("old") and good("new-one")
    server.stop()
    server.start()
    assert not good("old") and good("new-one"), "it is in the file of users"
