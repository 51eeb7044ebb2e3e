"""The Go and TypeScript examples: every name is the contract's; `make examples` compiles one and runs the other."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from papa_serving.stubs.serving.v1 import dead_letter_pb2, feedback_pb2, generation_pb2, types_pb2, user_pb2

from tests import absent
from tests.absent import reason
from tests.demo.conftest import learner
from tests.demo.learner import Learner
from tests.docs.support import ROOT, blocks
from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["learner", "service", "unstarted"]

GO = (ROOT / "docs/examples/go/main.go").read_text()
TYPESCRIPT = (ROOT / "docs/examples/typescript/round.mts").read_text()
FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR for module in (dead_letter_pb2, feedback_pb2, generation_pb2, types_pb2, user_pb2)
)
ASKED_FOR = reason("builds the examples in Go and TypeScript", "make examples")
asked_for = pytest.mark.skipif(not os.environ.get("EXAMPLES"), reason=ASKED_FOR)


def messages() -> Iterator[Descriptor]:
    for file in FILES:
        yield from file.message_types_by_name.values()


def go_name(field: str) -> str:
    """The name of a field in Go, as protoc-gen-go writes it."""
    return "".join(part.capitalize() for part in field.split("_"))


def go_names() -> Mapping[str, set[str]]:
    """The Go names of the contract, and the fields of each message."""
    found: dict[str, set[str]] = {}
    for message in messages():
        oneof = {field.name for each in message.oneofs for field in each.fields if len(each.fields) > 1}
        found[message.name] = {go_name(field.name) for field in message.fields if field.name not in oneof}
        found[message.name] |= {go_name(each.name) for each in message.oneofs if len(each.fields) > 1}
        found |= {f"{message.name}_{go_name(name)}": {go_name(name)} for name in oneof}
    for file in FILES:
        found |= {f"New{name}Client": set() for name in file.services_by_name}
        for name, enum in file.enum_types_by_name.items():
            found |= {name: set()} | {f"{name}_{value}": set() for value in enum.values_by_name}
    return found


def test_go_names_what_the_contract_generates() -> None:
    known, used = go_names(), re.findall(r"papav1\.(\w+)(\{[^{}]*)?", GO)
    assert len(used) > 10
    for name, literal in used:
        assert name in known, name
        assert set(re.findall(r"(?:\{|,|\n)\s*(\w+):", literal)) <= known[name], literal
    methods = {method for file in FILES for each in file.services_by_name.values() for method in each.methods_by_name}
    assert set(re.findall(r"(\w+)\(ctx, ", GO)) <= methods
    fields = set().union(*known.values())
    read = set(re.findall(r"\b(?:shown|item|accepted|State)\.(\w+)", GO)) - {"State"}
    assert {each.removeprefix("Get") for each in read} <= fields
    assert {"Items", "ItemId", "Outcomes", "PendingEvents"} <= read


def test_typescript_names_what_the_contract_has() -> None:
    services = {name: each for file in FILES for name, each in file.services_by_name.items()}
    clients = dict(re.findall(r"const (\w+) = new (\w+)\(address", TYPESCRIPT))
    assert len(clients) == 3
    calls = re.findall(r'>\((\w+), "(\w+)", \{([^}]*)\}', TYPESCRIPT) + re.findall(
        r"(users)\.(\w+)\(\{([^}]*)\}", TYPESCRIPT
    )
    assert [method for _, method, _ in calls] == ["Generate", "SubmitFeedback", "WatchUser"]
    for client, method, given in calls:
        request = services[clients[client]].methods_by_name[method].input_type
        assert set(re.findall(r"(\w+)(?:,|:| |$)", given.replace(": 4", ""))) <= set(request.fields_by_name), given
    event = re.search(r"=> \(\{\n(.*?)\}\)\);", TYPESCRIPT, re.DOTALL)
    assert event is not None
    assert set(re.findall(r"^  (\w+)[:,]", event[1], re.MULTILINE)) <= set(
        feedback_pb2.FeedbackEvent.DESCRIPTOR.fields_by_name
    )
    signals = set(re.findall(r'"(SIGNAL_\w+)"', TYPESCRIPT))
    assert signals <= set(feedback_pb2.Signal.DESCRIPTOR.values_by_name)
    state = set(re.findall(r"state\.(\w+)", TYPESCRIPT))
    assert state <= set(user_pb2.UserState.DESCRIPTOR.fields_by_name)


async def run(command: str, folder: Path, **environment: str) -> str:
    """Runs a command and returns its output. Raises AssertionError with the output when it fails."""
    ran = await asyncio.create_subprocess_exec(
        "bash", "-euc", command, cwd=folder, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await ran.communicate()
    assert ran.returncode == 0, said.decode()
    return said.decode()


DEBIAN = Path("/usr/share/gocode")
"""Debian's grpc-go is of 2020: what the example calls has an older name there, and its wire codec does not know
messages as they are generated today, so that the program is compiled and not run."""
OLDER = {
    "grpc.NewClient(": "grpc.Dial(",
    "grpc.WithTransportCredentials(insecure.NewCredentials())": "grpc.WithInsecure()",
    '\t"google.golang.org/grpc/credentials/insecure"\n': "",
}


async def test_go_is_generated_for_every_file_of_the_contract(tmp_path: Path) -> None:
    """protoc-gen-go refuses a file without a package; here a protoc that only says what it was asked for."""
    (tmp_path / "protoc").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "protoc").chmod(0o755)
    generating = next(block for block in blocks("docs/other-languages.md", "sh") if "--go_out" in block)
    asked = (await run(generating, ROOT, PATH=f"{tmp_path}:{os.environ['PATH']}")).split()
    files = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos/papa/serving").rglob("*.proto"))
    assert [each.removeprefix("protos/") for each in asked if each.endswith(".proto")] == files
    for option in ("--go_opt", "--go-grpc_opt"):
        named = [each.removeprefix(f"{option}=M").partition("=")[0] for each in asked if each.startswith(f"{option}=M")]
        assert named == files


@asked_for
async def test_go_is_generated_and_compiled(tmp_path: Path) -> None:
    if shutil.which("go") is None or not (DEBIAN / "src/google.golang.org/grpc").is_dir():
        absent.skip(
            "Go is not installed", "apt-get install golang-go golang-google-grpc-dev protoc-gen-go protoc-gen-go-grpc"
        )
    shop = tmp_path / "go" / "src" / "example.com" / "shop"
    (shop / "gen").mkdir(parents=True)
    shutil.copytree(ROOT / "protos", shop / "protos")
    generating = next(block for block in blocks("docs/other-languages.md", "sh") if "--go_out" in block)
    await run(generating, shop)
    program = GO
    for name, older in OLDER.items():
        assert name in program
        program = program.replace(name, older)
    (shop / "main.go").write_text(program)
    modules = {"GO111MODULE": "off", "GOPATH": f"{tmp_path / 'go'}:{DEBIAN}", "GOFLAGS": ""}
    await run("go vet ./... && go build -o round .", shop, **modules)
    assert (shop / "round").is_file()


@asked_for
async def test_typescript_is_run(service: Service, learner: Learner, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        absent.skip("npm is not installed", "apt-get install nodejs npm")
    (tmp_path / "round.mts").write_text(TYPESCRIPT)
    await run("npm install --silent --no-fund @grpc/grpc-js @grpc/proto-loader tsx typescript @types/node", tmp_path)
    checked = "npx tsc --noEmit --strict --target es2022 --module nodenext --skipLibCheck round.mts"
    said = await run(
        f"{checked} && npx tsx round.mts {service.gateway.address} alice", tmp_path, PAPA_PROTOS=str(ROOT / "protos")
    )
    assert re.search(r"4 items by .*\n4 labels accepted\n(.*\n)*serving \d{6}-", said), said
    assert learner.revisions
