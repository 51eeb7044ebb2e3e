"""The pages whose Python calls a service, run against a gateway whose backend learns."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.demo.conftest import learner
from tests.demo.learner import Learner
from tests.docs.test_code_blocks import ROOT, RUN_AGAINST_A_SERVICE, blocks
from tests.gateway.conftest import service, unstarted
from tests.gateway.service import Service

__all__ = ["learner", "service", "unstarted"]

ADDRESS = "127.0.0.1:50051"


@pytest.mark.parametrize("page", RUN_AGAINST_A_SERVICE)
async def test_the_page_runs_as_it_stands(page: str, service: Service, learner: Learner, tmp_path: Path) -> None:
    code = "\n".join(blocks(page))
    assert ADDRESS in code
    here = code.replace(ADDRESS, service.gateway.address)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{here}"]
    ran = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await ran.communicate()
    assert ran.returncode == 0, said.decode()
    assert learner.revisions, "it gave no feedback that was learnt from"
