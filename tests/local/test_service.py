"""The launcher as a process: real Redis, Ray and gateway, with placeholder applications behind them."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest
from papa_serving.client import Client, FeedbackEvent
from papa_serving.local.child_processes import descendants
from papa_serving.local.redis_process import RedisProcess
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from PIL import Image
from ray.serve.generated import serve_pb2

from tests.local.support import eventually, running
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
RAY_HOST = [sys.executable, "-m", "papa_serving.local.ray_host"]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data of all tests here, which build on one another."""
    return tmp_path_factory.mktemp("service")


class Launched:
    """A launcher in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        environment = {
            **os.environ,
            "PAPA_DATA_DIR": str(folder / "data"),
            # It is only looked for, and known by its name to the store that the placeholder has announced it to.
            "PAPA_BACKBONE": "fashion_mnist",
            "PAPA_GATEWAY__PORT": "0",
            "PAPA_METRICS__PORT": "0",
            "PAPA_PLAYGROUND__PORT": "0",
            "PAPA_RAY__SERVE_GRPC_PORT": "0",
            # Ray's workers import the placeholder, and nothing from the folder that the launcher was started in.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            **variables,
        }
        command = [sys.executable, "-m", "tests.local.run_placeholder", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def addresses(self) -> dict[str, str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        found: dict[str, str] = json.loads(line)
        return found

    def below(self) -> list[int]:
        """Every process of this launcher's, whatever its group or session."""
        return descendants(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Exit code and standard error, once it has ended. Where it does not end, the error says where it stands."""
        try:
            _, errors = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            self.process.kill()
            _, errors = self.process.communicate()
            pytest.fail(f"it does not end:\n{errors}")
        return self.process.returncode, errors


@contextmanager
def launched(folder: Path, *arguments: str, **variables: str) -> Iterator[Launched]:
    launcher = Launched(folder, *arguments, **variables)
    try:
        yield launcher
    finally:
        for pid in [*launcher.below(), launcher.process.pid]:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        launcher.process.communicate()


def engine_answers(address: str) -> str:
    """The reply of the placeholder at this address."""
    with grpc.insecure_channel(address) as channel:
        stub = engine_pb2_grpc.EngineServiceStub(channel)
        (response,) = stub.Run(engine_pb2.RunRequest(), metadata=(("application", "generator"),), timeout=30)
    return str(response.done.revision)


def serve_port(pids: list[int]) -> int:
    """The port of Serve's gRPC proxy: the one that listens on all interfaces and answers."""
    for pid in pids:
        if psutil.Process(pid).cmdline()[:1] == ["ray::ProxyActor"]:
            listening = [each for each in psutil.Process(pid).net_connections() if each.status == psutil.CONN_LISTEN]
            return next(each.laddr.port for each in listening if each.laddr.ip in ("::", "0.0.0.0"))
    raise AssertionError("no proxy is running")


class Harm:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def assert_replicas_unpickle_nothing(pids: list[int], folder: Path) -> None:
    """Ray Serve gives each replica a port on all interfaces, where requests come pickled: Ray's token must guard it."""
    harm = serve_pb2.ASGIRequest(pickled_request_metadata=pickle.dumps(Harm(folder / "harm")))
    replicas = [pid for pid in pids if psutil.Process(pid).cmdline()[:1][0].startswith("ray::ServeReplica")]
    refusals = Counter[grpc.StatusCode]()
    for port in {each.laddr.port for pid in replicas for each in psutil.Process(pid).net_connections()}:
        for method in serve_pb2.DESCRIPTOR.services_by_name["ASGIService"].methods:
            for metadata in ((), (("authorization", f"Bearer {'0' * 64}"),)):
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    call = channel.unary_stream(f"/ray.serve.ASGIService/{method.name}", bytes, bytes)
                    with pytest.raises(grpc.RpcError) as refused:
                        list(call(harm.SerializeToString(), metadata=metadata, timeout=30))
                    refusals[refused.value.code()] += 1
    assert refusals[grpc.StatusCode.UNAUTHENTICATED] >= 4 * len(replicas) > 0, refusals
    assert not (folder / "harm").exists()


def own_address() -> str:
    """An address of this machine that is not loopback; loopback where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_it_serves_heals_and_ends_without_a_trace(folder: Path) -> None:
    with launched(folder) as launcher:
        addresses = launcher.addresses()
        data = folder / "data"
        with Client(addresses["address"]) as client:
            (outcome,) = client.submit_feedback([FeedbackEvent("alice", 1.0, image=png())])
            assert outcome.accepted
            assert client.get_user("alice").pending_events == 1

            port = serve_port(launcher.below())
            assert engine_answers(f"127.0.0.1:{port}") == str(data)
            if own_address() != "127.0.0.1":
                with pytest.raises(grpc.RpcError, match="serves its own machine only"):
                    engine_answers(f"{own_address()}:{port}")

            assert_replicas_unpickle_nothing(launcher.below(), folder)

            gateway = next(pid for pid in launcher.below() if "papa_serving.gateway" in psutil.Process(pid).cmdline())
            os.kill(gateway, signal.SIGKILL)
            eventually(lambda: not running(gateway))
            eventually(lambda: client.is_serving(timeout=1.0))

        with Launched(folder).process as second:
            _, errors = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"already running on {data}" in errors

        below = launcher.below()
        # A shell, a service manager or `timeout` signals the whole group, not only the launcher.
        os.killpg(launcher.process.pid, signal.SIGTERM)
        code, errors = launcher.end()
    assert code == 0, errors
    assert "stopped" in errors
    eventually(lambda: not any(running(pid) for pid in below))
    assert (data / "logs" / "gateway.log").read_text().count('"ready"') == 2
    assert (data / "logs" / "ray" / "serve").is_dir()


def test_a_redis_that_was_killed_comes_back_and_a_hang_up_is_an_orderly_end(folder: Path) -> None:
    with launched(folder) as launcher:
        data = folder / "data"
        with Client(launcher.addresses()["address"]) as client:
            server = next(pid for pid in launcher.below() if "redis-server" in " ".join(psutil.Process(pid).cmdline()))
            os.kill(server, signal.SIGKILL)
            assert launcher.process.stderr is not None
            while "started again on the same data" not in (said := launcher.process.stderr.readline()):
                assert said, "the launcher has ended"
            eventually(lambda: client.is_serving(timeout=1.0))
            (outcome,) = client.submit_feedback([FeedbackEvent("alice", 1.0, event_id="after", image=png())])
            assert outcome.accepted
            assert client.get_user("alice").likes == 2

        private = (data / "logs" / "ray").readlink().parents[2]
        open_to_others = [
            str(path)
            for path in (private, data, *data.rglob("*"))
            if not path.is_symlink() and path.stat().st_mode & 0o077
        ]
        assert not open_to_others

        below = launcher.below()
        launcher.process.send_signal(signal.SIGHUP)
        code, errors = launcher.end()
    assert (code, "stopped" in errors) == (0, True)
    eventually(lambda: not any(running(pid) for pid in below))
    assert not private.exists()


def test_it_finds_everything_again_and_leaves_nothing_when_killed(folder: Path) -> None:
    with launched(folder) as launcher:
        with Client(launcher.addresses()["address"]) as client:
            assert client.get_user("alice").likes == 2
        below = launcher.below()
        launcher.process.kill()
        launcher.end()
    eventually(lambda: not any(running(pid) for pid in below))


def test_an_application_that_cannot_start_is_one_line_with_its_cause(folder: Path) -> None:
    once = {"RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1"}  # Ray Serve tries three times otherwise
    with launched(folder, "tests.local.placeholder_app:failing_app", **once) as launcher:
        below: set[int] = set()
        while launcher.process.poll() is None:
            below |= set(launcher.below())
            try:
                launcher.process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        code, errors = launcher.end()
    assert code == 1
    assert re.search(r"the generator does not start: .*no backbone 'nothing'", errors)
    assert "Traceback" not in errors
    eventually(lambda: not any(running(pid) for pid in below))


def _command_line(pid: int) -> str:
    """Empty for a process that has just ended."""
    with suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def test_an_existing_redis_and_ray_are_used_and_left_alone(tmp_path: Path, folder: Path) -> None:
    token, port = tmp_path / "token", free_port()
    token.write_text("0" * 64)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        # Ray's sockets lie there, and tmp_path is too long a path for them.
        tempfile.TemporaryDirectory(prefix="ray-") as session,
        RedisProcess(tmp_path / "redis", port=0) as redis,
        subprocess.Popen([*RAY_HOST, session, "4"], cwd=ROOT, env={**os.environ, **auth}, **pipes) as ray,
    ):
        assert ray.stdout is not None
        existing = {
            "PAPA_DATA_DIR": str(tmp_path / "data"),
            "PAPA_REDIS__URL": redis.url,
            "PAPA_RAY__ADDRESS": ray.stdout.readline().strip(),
            "PAPA_RAY__SERVE_GRPC_PORT": str(port),
            "PAPA_GATEWAY__GENERATOR": f"127.0.0.1:{port}",
            "PAPA_GENERATOR__TOKEN": "secret-of-the-engine",
        }
        with launched(folder, **auth, **existing) as launcher:
            with Client(launcher.addresses()["address"]) as client:
                assert client.generate("alice", 1).revision == str(tmp_path / "data")
            launcher.process.terminate()
            code, errors = launcher.end()
        assert code == 0, errors
        assert redis.running
        assert redis.url.split("@")[0] not in errors
        assert ray.poll() is None
        names = [_command_line(pid) for pid in descendants(ray.pid)]
        assert any("raylet" in name for name in names)
        assert not any("generator" in name for name in names)
