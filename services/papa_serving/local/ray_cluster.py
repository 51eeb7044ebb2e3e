"""The Ray that everything runs on: a lean, private one of our own, or an existing cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from papa_serving.local.child_processes import python_module, python_program
from papa_serving.local.failure import Failure
from papa_serving.settings import Settings
from papa_serving.settings.variables import in_environment

_FOLDER_PREFIX = "papa-ray-"
_RAY_FOLDER = "r"
_LONGEST_TEMPORARY_PATH = 23
"""107 bytes less "/papa-ray-XXXXXXXX/r/session_YYYY-MM-DD_hh-mm-ss_uuuuuu_PPPPPPP/sockets/plasma_store"."""

_STOP_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_METRICS = "RAY_enable_metrics_collection"
_ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
_REFUSED = "InvalidAuthToken"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's only switch for "this node is 127.0.0.1, listen there alone"; named after the systems that default to it.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    # Ray would start them at 15, behind everything else on the machine; here they are what the user waits for.
    "RAY_worker_niceness": "0",
    # Threads that wait give their core away: trainer and generator share the machine, and spinning doubles their times.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@contextmanager
def local_ray(settings: Settings) -> Iterator[None]:
    """Starts Ray on this machine and joins it; its logs stay in data_dir/logs/ray. Raises Failure."""
    logs = settings.data_dir / "logs" / "ray"
    _clear_up_after_a_kill(logs)
    # Ray's own metrics cost a process and some CPU; whoever wants them here says so.
    measured = {_METRICS: os.environ.get(_METRICS, "0")}
    environment = _ENVIRONMENT | measured | {"RAY_AUTH_TOKEN_PATH": str(_new_token(settings.data_dir))}
    private = _private_folder()
    # Ray opens its folder to everybody; nobody else can reach it below one that is ours alone.
    folder = private / _RAY_FOLDER
    _link_logs(logs, folder / "session_latest" / "logs")
    try:
        with in_environment(environment), _host(folder, settings) as address, _joined(address, settings.data_dir):
            yield
    finally:
        _keep_logs(logs)
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def existing_ray(settings: Settings) -> Iterator[None]:
    """Joins the cluster at settings.ray.address. Raises Failure when it does not answer, or not to us."""
    _check_listening(settings.ray.address)
    with in_environment(_token_mode()):
        _check_token(settings.ray.address)
        with _joined(settings.ray.address, settings.data_dir):
            yield


def _check_listening(address: str) -> None:
    """Ray would try for minutes to reach what is not there. An address without a port ("auto") is left to Ray."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise Failure(f"the Ray cluster at {address} does not answer: {error}", "check --ray-address") from error


def _token_mode() -> dict[str, str]:
    """A token is shown where there is one, as `ray start` does it; a cluster without tokens ignores it."""
    given = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    if "RAY_AUTH_MODE" in os.environ or not (given or (Path.home() / ".ray" / "auth_token").is_file()):
        return {}
    return {"RAY_AUTH_MODE": "token"}


def _check_token(address: str) -> None:
    """Asks in a process of its own: Ray would try a wrong token for twenty seconds, and say so in as many lines."""
    if "://" in address or not address.rpartition(":")[2].isdigit():
        return
    command = python_program(_ASK, address)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stderr is not None
        refused = any(_REFUSED in line for line in asking.stderr)
        asking.kill()
    if refused:
        hint = "set RAY_AUTH_TOKEN_PATH to a file with its token; where it is not set, ~/.ray/auth_token counts"
        raise Failure(f"the Ray cluster at {address} asks for a token that it was not shown", hint)


@contextmanager
def _joined(address: str, data_dir: Path) -> Iterator[None]:
    """Ray adds the working folder of who joins to the path of every worker: it is an empty one while we do."""
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    empty = data_dir / "empty"
    empty.mkdir(exist_ok=True)
    try:
        with contextlib.chdir(empty):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Failure(f"the Ray cluster at {address} does not answer: {error}", "check --ray-address") from error
    try:
        yield
    finally:
        ray.shutdown()


def _new_token(data_dir: Path) -> Path:
    """A secret that every process of this Ray must show; only this user can read it."""
    token = data_dir / "ray.token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return token


def _logical_cpus(settings: Settings) -> int:
    """Ray's CPUs only limit the number of actors here: every configured actor gets one."""
    trainers = max(settings.trainer.actors, settings.trainer.autoscaling.max_actors)
    actors = settings.generator.max_replicas + settings.generator.replicas + trainers
    return max(os.cpu_count() or 1, actors + 1)


@contextmanager
def _host(folder: Path, settings: Settings) -> Iterator[str]:
    """The process that holds Ray, and the address that it says once Ray is up."""
    command = python_module("papa_serving.local.ray_host", str(folder), str(_logical_cpus(settings)))
    errors = settings.data_dir / "logs" / "ray_host.log"
    pipe = subprocess.PIPE
    with errors.open("w") as log:
        host = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)
    try:
        import ray  # noqa: F401 - a second's work while the host starts Ray

        assert host.stdout is not None
        address = host.stdout.readline().strip()
        if not address:
            raise Failure("the local Ray does not start", f"see {errors}")
        yield address
    finally:
        _end(host)


def _end(host: subprocess.Popen[str]) -> None:
    """The end of its input asks it to stop."""
    assert host.stdin is not None
    assert host.stdout is not None
    with host.stdin, host.stdout:
        host.stdin.close()
        try:
            host.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()


def _link_logs(logs: Path, session_logs: Path) -> None:
    logs.parent.mkdir(exist_ok=True)
    if logs.exists():
        shutil.rmtree(logs)
    logs.symlink_to(session_logs)


def _keep_logs(logs: Path) -> None:
    """Replaces the link by the files, so that they outlive Ray's own folder; links in them stay links.

    Nothing is copied that lies outside the folder which was made for this Ray, or in one that others could write to.
    """
    if logs.is_symlink():
        private, source = _private_folder_of(logs), logs.resolve()
        logs.unlink()
        if private is not None and source.is_relative_to(private.resolve()) and source.is_dir():
            shutil.copytree(source, logs, symlinks=True)


def _clear_up_after_a_kill(logs: Path) -> None:
    """A launcher that was killed left its link, and with it the way to Ray's own folder."""
    if logs.is_symlink():
        private = _private_folder_of(logs)
        _keep_logs(logs)
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)


def _private_folder_of(logs: Path) -> Path | None:
    """The folder that `local_ray` made for the Ray whose logs are linked; None where it is not ours alone any more."""
    private = logs.readlink().parents[2]  # PRIVATE/RAY/session_latest/logs
    try:
        found = private.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return private if ours and private.name.startswith(_FOLDER_PREFIX) else None


def _private_folder() -> Path:
    """A new temporary folder for this user alone. Raises Failure where every path below it would be too long for Ray.

    Unix sockets lie below it and their paths may have 107 bytes at most: data_dir may be too deep, and TMPDIR as well.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a private one there
        if len(os.fsencode(parent)) <= _LONGEST_TEMPORARY_PATH and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    hint = f"set TMPDIR to a folder that you can write to, of {_LONGEST_TEMPORARY_PATH} characters at most"
    raise Failure(f"{tempfile.gettempdir()} is too long a path for Ray's sockets", hint)
