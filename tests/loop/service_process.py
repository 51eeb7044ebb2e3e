"""`papa up` as a person starts it: a process of its own, known only by what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTED = re.compile(r"^\s*(gRPC|playground|metrics|data|logs)\s+(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Running:
    """A running service and the addresses that it printed."""

    process: subprocess.Popen[str]
    grpc: str
    metrics: str
    playground: str
    """"" where there is none."""

    def stop(self) -> int:
        """Asks for the end as Ctrl-C does, and returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=120)


PAPA = (sys.executable, "-m", "papa_serving.cli.main")


@contextmanager
def papa_up(
    data_dir: Path,
    backbone: Path,
    environment: Mapping[str, str],
    papa: Sequence[str] = PAPA,
    folder: Path | None = None,
) -> Iterator[Running]:
    """Runs the command `papa` in `folder` until the block ends.

    Raises AssertionError with its output when it does not come up.
    """
    command = [*papa, "up", "--data-dir", str(data_dir), "--port", "0"]
    command += ["--metrics-port", "0", "--backbone", str(backbone)]
    environment = {
        **os.environ,
        "PAPA_RAY__SERVE_GRPC_PORT": "0",
        "PAPA_PLAYGROUND__ENABLED": "false",
        "COLUMNS": "400",
        **environment,
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    giving_up = threading.Timer(300, process.kill)
    giving_up.start()
    assert process.stdout is not None
    reader: threading.Thread | None = None
    try:
        printed, found = "", {}
        for line in process.stdout:
            printed += line
            found = dict(STARTED.findall(printed))
            if "logs" in found:
                break
        giving_up.cancel()
        assert "logs" in found, f"papa up did not start:\n{printed}"
        # What it prints later must not fill the pipe.
        reader = threading.Thread(target=process.stdout.read, daemon=True)
        reader.start()
        yield Running(process, found["gRPC"], found["metrics"], found.get("playground", ""))
    finally:
        giving_up.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if reader is not None:
            reader.join()
        process.stdout.close()
