"""Provides the Ray cluster: a private local one with few extras, or an existing one."""

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
    # Makes Ray use 127.0.0.1 and listen there alone. It is named after the systems on which that is the default.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    # Ray would start workers at niceness 15, behind all else on the machine. Here the user waits for them.
    "RAY_worker_niceness": "0",
    # Waiting threads yield their core. Trainer and generator share the machine, and spinning doubles their times.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@contextmanager
def local_ray(settings: Settings) -> Iterator[None]:
    """Starts Ray on this machine and connects to it. Its logs are kept in data_dir/logs/ray. Raises Failure."""
    logs = settings.data_dir / "logs" / "ray"
    _clear_up_after_a_kill(logs)
    # Ray's own metrics cost a process and some CPU, so they are off by default.
    measured = {_METRICS: os.environ.get(_METRICS, "0")}
    environment = _ENVIRONMENT | measured | {"RAY_AUTH_TOKEN_PATH": str(_new_token(settings.data_dir))}
    private = _private_folder()
    # Ray makes its folder accessible to everybody. Inside a private folder nobody else can reach it.
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
    """Connects to the cluster at settings.ray.address. Raises Failure when it does not answer or refuses us."""
    _check_listening(settings.ray.address)
    with in_environment(_token_mode()):
        _check_token(settings.ray.address)
        with _joined(settings.ray.address, settings.data_dir):
            yield


def _check_listening(address: str) -> None:
    """Fails early: Ray would try to connect for minutes. An address without a port ("auto") is left to Ray."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise Failure(f"the Ray cluster at {address} does not answer: {error}", "check --ray-address") from error


def _token_mode() -> dict[str, str]:
    """Uses token authentication if a token exists, as `ray start` does. A cluster without tokens ignores it."""
    given = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    if "RAY_AUTH_MODE" in os.environ or not (given or (Path.home() / ".ray" / "auth_token").is_file()):
        return {}
    return {"RAY_AUTH_MODE": "token"}


def _check_token(address: str) -> None:
    """Checks the token in a separate process: with a wrong one Ray retries for twenty seconds and logs every try."""
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
    """Connects from an empty working folder, because Ray adds the caller's folder to the path of every worker."""
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
    """Writes a new secret that every process of this Ray must present. Only this user can read it."""
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
    """Starts the process that holds Ray. Returns it and the address that it prints once Ray is up."""
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
    """Asks the process to stop by closing its input."""
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
    """Replaces the link by the log files, so that they outlive Ray's own folder. Links among them stay links.

    Copies nothing from outside the folder of this Ray, and nothing from a folder that others can write to.
    """
    if logs.is_symlink():
        private, source = _private_folder_of(logs), logs.resolve()
        logs.unlink()
        if private is not None and source.is_relative_to(private.resolve()) and source.is_dir():
            shutil.copytree(source, logs, symlinks=True)


def _clear_up_after_a_kill(logs: Path) -> None:
    """Removes the folder of a Ray whose launcher was killed. The left-over link to the logs leads to it."""
    if logs.is_symlink():
        private = _private_folder_of(logs)
        _keep_logs(logs)
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)


def _private_folder_of(logs: Path) -> Path | None:
    """The folder that `local_ray` made for the Ray with the linked logs; None if others can write to it."""
    private = logs.readlink().parents[2]  # PRIVATE/RAY/session_latest/logs
    try:
        found = private.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return private if ours and private.name.startswith(_FOLDER_PREFIX) else None


def _private_folder() -> Path:
    """Makes a temporary folder for this user alone. Raises Failure when all possible paths are too long for Ray.

    It contains unix sockets, whose paths may have 107 bytes at most. Both data_dir and TMPDIR may be too deep for that.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a private one there
        if len(os.fsencode(parent)) <= _LONGEST_TEMPORARY_PATH and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    hint = f"set TMPDIR to a folder that you can write to, of {_LONGEST_TEMPORARY_PATH} characters at most"
    raise Failure(f"{tempfile.gettempdir()} is too long a path for Ray's sockets", hint)
