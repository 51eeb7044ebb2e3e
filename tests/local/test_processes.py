"""Children: restarted when they die, ended when we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from papa_serving.local.child_processes import SupervisedProcess, descendants

from tests.local.support import eventually, running

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    with SupervisedProcess(SLEEPER, os.environ, log) as child:
        first = child.pid
        eventually(lambda: log.exists() and log.read_text() == "up\n")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: child.restarts == 1 and child.pid != first and running(child.pid))
        eventually(lambda: log.read_text() == "up\nup\n")
        second = child.pid
    assert not running(second)


def test_one_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with SupervisedProcess(STUBBORN, os.environ, log) as child:
        eventually(lambda: log.read_text() == "up\n")
        child.stop(grace=0.2)
        assert not running(child.pid)


def test_one_that_cannot_start_is_tried_at_growing_intervals(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no')"]
    with SupervisedProcess(failing, os.environ, tmp_path / "child.log") as child:
        eventually(lambda: child.restarts >= 2)


def test_a_supervised_process_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from papa_serving.local.child_processes import SupervisedProcess
with SupervisedProcess({SLEEPER!r}, os.environ, Path({str(tmp_path / "log")!r})) as child:
    print(child.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert running(child)
        assert descendants(parent.pid) == [child]
        parent.kill()
    eventually(lambda: not running(child))


def test_a_signal_within_a_destructor_is_not_lost() -> None:
    """Python swallows what a destructor raises, and a handler runs wherever the main thread happens to be."""
    program = """
import os, signal
from pathlib import Path
from papa_serving.local.service import RunningService
from papa_serving.local.stop_signals import Stopped, StopSignals

class Doomed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(100_000):
            pass

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup would have it ignored
with StopSignals() as signals:
    try:
        service = RunningService("", "", "", Path(), Path(), None, (), lambda: signals.asked)
        Doomed()
        print("swallowed", flush=True)
        service.wait(print)
    except Stopped:
        print("stopped", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "swallowed\nstopped\n"


def test_the_second_signal_ends_a_slow_end_at_once() -> None:
    program = f"""
import signal, subprocess, time
from papa_serving.local.stop_signals import Stopped, StopSignals
child = subprocess.Popen({SLEEPER!r}, stdout=subprocess.DEVNULL, start_new_session=True)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what is to run in the background
with StopSignals() as signals:
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    except Stopped:
        print("stopping", flush=True)
        time.sleep(600)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    eventually(lambda: not running(child))
