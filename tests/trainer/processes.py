"""Trainer processes under a test's control."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from papa_serving.settings import Settings
from papa_serving.settings.variables import settings_environment

ROOT = Path(__file__).parents[2]


@contextmanager
def trainer_process(settings: Settings, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Runs within the block, logging to `log_file`; killed at its end if it still lives."""
    with log_file(settings).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.trainer_process"],
            cwd=ROOT,
            env=os.environ | settings_environment(settings) | environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def log_file(settings: Settings) -> Path:
    return settings.data_dir / "trainer.log"


def was_killed(process: subprocess.Popen[str]) -> bool:
    return process.poll() == -signal.SIGKILL
