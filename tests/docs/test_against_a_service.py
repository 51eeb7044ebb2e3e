"""Runs the Python and shell examples of the pages against a gateway with a learning backend."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, symbol_database
from google.protobuf.message_factory import GetMessageClass
from papa_serving.contracts.catalogue import CatalogueKey
from PIL import Image

from tests.cli.conftest import Papa
from tests.demo.conftest import learner, papa
from tests.demo.learner import Learner
from tests.docs.support import (
    ROOT,
    RUN_AGAINST_A_SERVICE,
    RUN_FOR_ITS_EVENT,
    RUN_WITH_A_PICTURE,
    blocks,
    command_lines,
)
from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["learner", "papa", "service", "unstarted"]

ADDRESS = "127.0.0.1:50051"


@pytest.mark.parametrize("page", RUN_AGAINST_A_SERVICE)
async def test_the_page_runs_as_it_stands(page: str, service: Service, learner: Learner, tmp_path: Path) -> None:
    await run_page(page, service, tmp_path)
    assert learner.revisions, "it gave no feedback that was learnt from"


async def test_the_page_of_catalogues_runs_where_there_is_a_picture(service: Service, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / "shoe-17.jpg", "JPEG")
    assert "Put.ADDED" in await run_page(RUN_WITH_A_PICTURE, service, tmp_path)
    (stored,) = (await service.catalogues.page(CatalogueKey("default", "default"), 10, "")).items
    assert stored.metadata == {"kind": "shoe", "price": 49.5}


async def test_the_page_of_attribution_runs(service: Service, tmp_path: Path) -> None:
    await run_page(RUN_FOR_ITS_EVENT, service, tmp_path)
    (event,) = service.log.accepted
    assert (event.attribution.type, event.attribution.notes.tags) == ("click", ("spring",))
    assert event.item_id.startswith(event.attribution.generation_id)


async def run_page(page: str, service: Service, folder: Path) -> str:
    """Runs the Python of a page as it stands, and returns what it printed."""
    code = "\n".join(blocks(page))
    assert ADDRESS in code
    here = code.replace(ADDRESS, service.gateway.address)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{here}"]
    ran = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await ran.communicate()
    assert ran.returncode == 0, said.decode()
    return said.decode()


CALLING = {"generate", "users", "feedback", "adapters", "deadletters", "health"}
ONE_PAGES_OWN = {"--prompt", "export"}
"""For a text backbone, tests/loop/test_prompts.py; an adapter that is one, tests/gateway/test_transfer.py."""


async def test_the_commands_of_the_pages_run(papa: Papa, service: Service, learner: Learner, monkeypatch) -> None:
    host, _, port = service.gateway.address.rpartition(":")
    monkeypatch.setenv("PAPA_GATEWAY__HOST", host)
    monkeypatch.setenv("PAPA_GATEWAY__PORT", port)
    commands = {tuple(words[1:]) for _, words in command_lines() if Path(words[0]).name == "papa"}
    called = [each for each in commands if each[0] in CALLING and not ONE_PAGES_OWN & set(each)]
    assert len(called) >= 3
    for command in sorted(called):
        ended = await asyncio.to_thread(papa, *_aimed(command, service.gateway.address))
        assert ended.code == 0, (command, ended.err)
        assert ended.out


def _aimed(command: tuple[str, ...], address: str) -> list[str]:
    """The command with `address` in place of a page's example of one."""
    words = list(command)
    if "--address" in words:
        words[words.index("--address") + 1] = address
    return words


async def test_the_grpcurl_calls_of_the_readme_are_answered(service: Service, learner: Learner) -> None:
    """Makes the calls in the order of the page, with the bytes that grpcurl sends."""
    item = ""
    async with grpc.aio.insecure_channel(service.gateway.address) as channel:
        for words in (words for _, words in command_lines() if words[0] == "grpcurl"):
            name, _, method = words[-1].partition("/")
            found = symbol_database.Default().pool.FindServiceByName(name).methods_by_name[method]
            body = words[words.index("-d") + 1].replace("ITEM_ID_FROM_ABOVE", item)
            request = json_format.Parse(body, GetMessageClass(found.input_type)())
            answer = GetMessageClass(found.output_type)
            call = channel.unary_unary(f"/{words[-1]}", type(request).SerializeToString, answer.FromString)
            said = await call(request)
            item = said.items[0].item_id if method == "Generate" else item
            assert method != "SubmitFeedback" or said.outcomes[0].HasField("ack"), said
