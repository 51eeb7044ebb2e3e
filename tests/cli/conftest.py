"""The command line in this process, and a gateway to call."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from papa_serving.cli.app import run

from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["service", "unstarted"]


@dataclass(frozen=True)
class Ended:
    """One command that has run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Papa = Callable[..., Ended]


@pytest.fixture
def papa(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Papa]:
    """Runs `papa` with these arguments in an empty folder. What it changes of this process is put back."""
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)

    def call(*arguments: str) -> Ended:
        code = run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    yield call
    os.umask(mask)


@pytest.fixture
def papa_call(papa: Papa, service: Service) -> Callable[..., Any]:
    """Runs a calling command against the running gateway."""

    async def call(*arguments: str) -> Ended:
        return await asyncio.to_thread(papa, *arguments, "--address", service.gateway.address)

    return call
