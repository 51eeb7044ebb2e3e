"""The content of the wheel; its client needs only grpc."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.loop.service_process import papa_up
from tests.papa.support import save_tiny_backbone

ROOT = Path(__file__).parents[2]
IN_A_BUILD = ("papa/", "services/", "packaging/", "pyproject.toml", "README.md", "LICENSE")
SERVER_ONLY = ("torch", "ray", "diffusers", "redis", "numpy", "PIL", "pydantic", "rich", "typer", "safetensors", "papa")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git tracks, so that nothing lying about gets into a wheel."""
    folder = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if name.startswith(IN_A_BUILD) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def built(project: Path, out: Path) -> Path:
    """The wheel of a project."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(project)], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(source, tmp_path_factory.mktemp("wheel"))


def test_types_scripts_and_stubs_are_shipped(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"papa/py.typed", "papa_serving/py.typed", "papa_serving/stubs/serving/v1/generation_pb2.pyi"} <= names
    assert {path for path in names if path.endswith(".lua")} == {
        str(path.relative_to(ROOT / "services")) for path in (ROOT / "services").rglob("*.lua")
    }
    assert "papa/backbone/weights/fashion_mnist/unet/diffusion_pytorch_model.safetensors" in names
    text = "papa/backbone/weights/fashion_mnist_text"
    parts = ("unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/tokenizer.json")
    assert {f"{text}/{part}" for part in parts} <= names
    sizes = {path.split("/")[3]: 0 for path in names if path.startswith("papa/backbone/weights/")}
    for each in zipfile.ZipFile(wheel).infolist():
        if each.filename.startswith("papa/backbone/weights/"):
            sizes[each.filename.split("/")[3]] += each.file_size
    assert max(sizes.values()) < 6_500_000, "a shipped backbone is about 5 MB, its oracle 0.5 MB, its pool 0.4 MB"
    assert not [path for path in names if path.startswith(("tests/", "docs/"))]


def test_the_client_imports_on_a_base_install(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVER_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import papa_serving.client
assert papa_serving.client.__file__.startswith({str(tmp_path)!r})
from papa_serving.client import AsyncClient, Client
Client("127.0.0.1:1").close()
from papa_serving.client import Item, ServedBy
for decode in (Item.pil, Item.numpy):
    try:
        decode(Item("", b"", "image/png", 0, 0, ServedBy.BASE))
    except ModuleNotFoundError as missing:
        assert "pip install pillow numpy" in str(missing)
    else:
        raise AssertionError("decoded without Pillow")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_the_clients_own_wheel_is_small_and_stubs_of_the_callers_work_beside_it(source: Path, tmp_path: Path) -> None:
    wheel = built(source / "packaging" / "client", tmp_path)
    assert wheel.stat().st_size < 300_000
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert {"papa_serving/py.typed", "papa_serving/stubs/serving/v1/generation_pb2.pyi"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    (tmp_path / "own").mkdir()
    contract = sorted((ROOT / "protos" / "papa" / "serving" / "v1").glob("*.proto"))
    into = [f"--{kind}_out={tmp_path / 'own'}" for kind in ("python", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *into]
    subprocess.run([*command, *map(str, contract)], check=True)
    program = f"""
import papa_serving.client
from papa_serving.client import *
assert papa_serving.client.__file__.startswith({str(tmp_path)!r})
assert __version__ == "0.1.0"
Client("127.0.0.1:1").close()
from papa.serving.v1 import generation_pb2, generation_pb2_grpc
assert generation_pb2.__file__.startswith({str(tmp_path)!r})
"""
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    path = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "installed"), str(tmp_path / "own"), *borrowed]),
    }
    subprocess.run([sys.executable, "-S", "-P", "-c", program], cwd=tmp_path, env=path, check=True)


def test_the_clients_own_wheel_needs_what_the_base_installation_needs() -> None:
    whole, client = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for folder in (ROOT, ROOT / "packaging" / "client")
    )
    for field in ("version", "dependencies", "requires-python", "license"):
        assert client[field] == whole[field]
    assert client["optional-dependencies"]["image"] == whole["optional-dependencies"]["image"]


def test_the_command_line_says_what_it_misses_on_a_base_install(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import sys; sys.modules['typer'] = None; from papa_serving.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'papa-serving[server]'" in done.stderr
    assert "Traceback" not in done.stderr


TRAPS = ("services/__init__.py", "papa.py", "utils.py", "redis.py", "tests/__init__.py", "papa_serving.py", "ray.py")
SHOP = """
import sys
import services  # the shop's own
from papa_serving.client import Client, FeedbackEvent
with Client(sys.argv[1]) as papa:
    shown = papa.generate("alice", 2)
    papa.submit_feedback([FeedbackEvent("alice", 1.0, item_id=each.item_id) for each in shown.items])
    print(papa.wait_for_revision("alice", after=shown.revision, timeout=120).events_total)
"""


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel itself, and what it needs from this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True)
    return folder / "bin"


def test_it_runs_in_a_folder_whose_files_have_the_names_of_its_modules(installed: Path, tmp_path: Path) -> None:
    """Most backends have a package `services`. Nothing is imported from the working folder."""
    folder = tmp_path / "shop"
    for trap in TRAPS:
        (folder / trap).parent.mkdir(parents=True, exist_ok=True)
        (folder / trap).write_text("raise RuntimeError('this is the file of the working folder')\n")
    (folder / "services" / "__init__.py").write_text("")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "shop.py").write_text(SHOP)
    environment = {"PAPA_TRAINER__MIN_LABELS": "2", "PAPA_GENERATOR__STEPS": "4", "PAPA_PLAYGROUND__ENABLED": "false"}
    backbone = save_tiny_backbone(tmp_path / "backbone")
    with papa_up(tmp_path / "data", backbone, environment, [str(installed / "papa")], folder) as running:
        called = [installed / "papa", "generate", "bob", "--count", "1", "--address", running.grpc]
        subprocess.run(called, cwd=folder, check=True, capture_output=True)
        # The program's own folder comes first on its path, as Python has it; its working folder may be any.
        shop = [installed / "python", tmp_path / "program" / "shop.py", running.grpc]
        path = {**os.environ, "PYTHONPATH": str(tmp_path / "package")}
        (tmp_path / "package").mkdir()
        (folder / "services").rename(tmp_path / "package" / "services")
        done = subprocess.run(shop, cwd=folder, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
