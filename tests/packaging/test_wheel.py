"""What a wheel holds, and that its client needs nothing but grpc."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER_ONLY = ("torch", "ray", "diffusers", "redis", "numpy", "PIL", "pydantic", "rich", "typer", "safetensors", "papa")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, so that nothing lying about gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if name.startswith(("papa/", "services/", "pyproject.toml", "README.md")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


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
        assert "papa-serving[image]" in str(missing)
    else:
        raise AssertionError("decoded without Pillow")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_the_command_line_says_what_it_misses_on_a_base_install(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import sys; sys.modules['typer'] = None; from papa_serving.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'papa-serving[server]'" in done.stderr
    assert "Traceback" not in done.stderr
