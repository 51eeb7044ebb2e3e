"""Other users of the machine on which `papa up` runs: the engine's port, files, and adapters that the engine reads."""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from papa_serving.client import AsyncClient, FeedbackEvent, PapaError
from papa_serving.local.child_processes import descendants
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc

from tests.attack.pictures import png
from tests.attack.result import Attack, Found, Target, answer_to, connected, counted
from tests.attack.target import token_of, written_keys
from tests.loop.service_process import papa_up


@contextmanager
def whole_service() -> Iterator[tuple[Target, psutil.Process]]:
    """`papa up` with the shipped backbone, static keys and everything else as it comes."""
    with tempfile.TemporaryDirectory(prefix="papa-attack-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {
            "PAPA_GATEWAY__AUTH__MODE": "keys",
            "PAPA_GATEWAY__AUTH__KEYS_FILE": str(written_keys(folder)),
            "PAPA_TRAINER__MIN_LABELS": "4",
        }
        with papa_up(folder / "data", Path("fashion_mnist"), settings) as service:
            process = psutil.Process(service.process.pid)
            yield Target(service.grpc, service.grpc, folder / "data", "", token_of), process


def _below(folder: Path) -> list[psutil.Process]:
    """Every process of the service whose data lie in `folder`."""
    roots = [each.pid for each in psutil.process_iter(["cmdline"]) if str(folder) in (each.info["cmdline"] or [])]
    pids = {pid for root in roots for pid in (root, *descendants(root))}
    return [psutil.Process(pid) for pid in sorted(pids) if psutil.pid_exists(pid)]


def engine_port(folder: Path) -> int:
    """The port of Serve's gRPC proxy: the one on which its process listens on every interface."""
    for process in _below(folder):
        if process.cmdline()[:1] == ["ray::ProxyActor"]:
            listening = [each for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
            return next(int(each.laddr.port) for each in listening if each.laddr.ip in ("::", "0.0.0.0"))
    raise AssertionError("no proxy is running")


async def past_the_gateway(target: Target, scale: float) -> Found:
    """Asks the engine itself, without a token, for somebody's items, for 2³¹ − 1 of them, and with a guessed token."""
    answers = []
    async with connected(f"127.0.0.1:{engine_port(target.folder)}") as channel:
        stub = engine_pb2_grpc.EngineServiceStub(channel)
        for count, guess in ((1, ""), (2**31 - 1, ""), (1, "Bearer guess"), (2**32 - 1, "Bearer " + "x" * 4_000)):
            metadata = (("application", "generator"), *((("authorization", guess),) if guess else ()))
            request = engine_pb2.RunRequest(tenant="other", user="carol", count=count, steps=1)
            answers.append(await answer_to(stub.Run(request, metadata=metadata, timeout=30.0)))
    return Found({answer.split(" ")[0] for answer in answers} == {"UNAUTHENTICATED"}, counted(answers))


def open_to_others(root: Path) -> list[str]:
    """Paths below `root` that another user of the machine could read, write or enter; none if a parent is closed."""
    if any(not parent.stat().st_mode & stat.S_IXOTH for parent in [*root.parents, root]):
        return []
    found = []
    for folder, _, names in os.walk(root):
        for path in (Path(folder), *(Path(folder) / name for name in names)):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
                found.append(f"{path} is {stat.filemode(mode)}")
    return found


def _folders(data: Path) -> set[Path]:
    """The service's own folder, and those that Ray's processes were told to use."""
    named = [argument.partition("=") for process in _below(data) for argument in process.cmdline()]
    folders = {
        Path(value) for name, _, value in named if name.lstrip("-").replace("-", "_") in ("session_dir", "temp_dir")
    }
    return {data, *(folder for folder in folders if folder.is_dir())}


async def files_of_others(target: Target, scale: float) -> Found:
    """Every file of the service, and the folder that Ray keeps its sockets and logs in."""
    folders = _folders(target.folder)
    found = [each for folder in folders for each in open_to_others(folder)]
    said = f"{len(found)} open in {len(folders)} folders{': ' if found else ''}{'; '.join(found[:2])}"
    return Found(len(folders) > 1 and not found, said)


async def odd_adapters(target: Target, scale: float) -> Found:
    """An export of one's own, with types, scales and prompts that no export has."""
    async with AsyncClient(target.address, token=target.token_of("shop"), tenant="shop") as papa:
        await papa.submit_feedback([FeedbackEvent("alice", 1.0, image=png(28 + n)) for n in range(4)])
        await papa.wait_for_revision("alice", timeout=120.0)
        files = {Path(name).name: data for name, data in (await papa.export_user("alice")).files.items()}
        answers = []
        for changed in _changes(files):
            try:
                await papa.import_adapter("bob", changed)
                answers.append("OK")
            except PapaError as refusal:
                answers.append(type(refusal).__name__)
    return Found(set(answers) == {"InvalidRequest"}, counted(answers))


def _changes(files: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
    tensors, config = files["adapter_model.safetensors"], json.loads(files["adapter_config.json"])
    for kind in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "BOOL", "U64"):
        yield {**files, "adapter_model.safetensors": _typed(tensors, kind)}
    for odd in ("1" + "0" * 400, "1e400", "NaN", "-1", '"x"', "null", "[]"):
        text = json.dumps({**config, "lora_alpha": 0}).replace('"lora_alpha": 0', f'"lora_alpha": {odd}')
        yield {**files, "adapter_config.json": text.encode()}
    yield {**files, "adapter_model.safetensors": struct.pack("<Q", 2**63) + tensors[8:]}
    yield {**files, "adapter_config.json": b"[" * 100_000}


def _typed(tensors: bytes, kind: str) -> bytes:
    """The same bytes, said to be of another type."""
    (length,) = struct.unpack("<Q", tensors[:8])
    header = json.loads(tensors[8 : 8 + length])
    for name, each in header.items():
        if name != "__metadata__":
            each["dtype"] = kind
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors[8 + length :]


ATTACKS = (
    Attack("the engine's port, past the gateway", past_the_gateway),
    Attack("files and folders of other users", files_of_others),
    Attack("adapters with odd types and scales", odd_adapters),
)
