"""`papa up` for a measurement: a process of its own, with data that is thrown away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ADDRESS = re.compile(r"^\s*gRPC\s+(\S+)\s*$")
STOP_SECONDS = 90.0


@contextmanager
def service(settings: Mapping[str, str]) -> Iterator[str]:
    """The gateway's address; `settings` are PAPA_* variables. Raises RuntimeError with its output when it fails."""
    with tempfile.TemporaryDirectory(prefix="papa-bench-") as folder:
        command = [sys.executable, "-m", "papa_serving.cli.main", "up", "--data-dir", folder, "--no-playground"]
        command += ["--port", "0", "--metrics-port", "0"]
        environment = {**os.environ, "PAPA_RAY__SERVE_GRPC_PORT": "0", "COLUMNS": "400", **settings}
        log = (Path(folder) / "up.log").open("w+")
        with (
            log,
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            ) as process,
        ):
            assert process.stdout is not None
            try:
                yield _address(process, log.name)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def _address(process: subprocess.Popen[str], log: str) -> str:
    printed, address = "", ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        found = _ADDRESS.match(line)
        address = found.group(1) if found else address
        if "Ctrl-C" in line:
            return address
    raise RuntimeError(f"the service does not start:\n{printed}{Path(log).read_text()}")
