"""A hub id, against a server that answers as the hub does: JSON files come first, weights only for what is served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helm.rendering import ROOT
from tests.papa.pipelines import pixels, saved

COMMIT = "0" * 40
NAME = "somebody/tiny"
INSPECT = f"from papa_serving.local.backbone_check import inspect_hub; print(inspect_hub({NAME!r}))"
DOWNLOAD = f"from papa.pipeline_folder import download; print(download({NAME!r}))"


class Hub(BaseHTTPRequestHandler):
    """One repository, whose files lie in the server's `folder`; its `asked` holds the files asked for."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{NAME}"):
            files = [each for each in folder.rglob("*") if each.is_file()]
            names = {str(each.relative_to(folder)): each.stat().st_size for each in files}
            about = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            tree = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in names.items()]
            data, more = json.dumps(tree if "/tree/" in path else about).encode(), {}
        elif not path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
            self.send_error(404)
            return
        else:
            name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            self.server.asked.add(name)  # type: ignore[attr-defined]
            data, more = (folder / name).read_bytes(), {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
        self.send_response(200)
        for header, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **more}.items():
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = Path(saved(pixels(), tmp_path / "repository")), set()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(program: str, hub: ThreadingHTTPServer, cache: Path) -> tuple[str, str]:
    """What it prints, and the last line of its error."""
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment, **place}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def weights(hub: ThreadingHTTPServer) -> list[str]:
    return [name for name in hub.asked if not name.endswith(".json")]  # type: ignore[attr-defined]


def test_what_can_be_served_is_told_by_its_json_files_and_fetched_when_it_is_loaded(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    assert run(INSPECT, hub, tmp_path / "cache")[0] == "DDPMPipeline"
    assert weights(hub) == []
    folder, _ = run(DOWNLOAD, hub, tmp_path / "cache")
    assert weights(hub) == ["unet/diffusion_pytorch_model.safetensors"]
    assert (Path(folder) / weights(hub)[0]).is_file()
    hub.shutdown()
    hub.server_close()
    assert run(DOWNLOAD, hub, tmp_path / "cache")[0] == folder, "the cached one, where the hub is not reached"


@pytest.mark.parametrize("program", [INSPECT, DOWNLOAD], ids=["inspect", "download"])
def test_a_pipeline_that_cannot_be_served_costs_no_weights(
    hub: ThreadingHTTPServer, tmp_path: Path, program: str
) -> None:
    index = hub.folder / "model_index.json"  # type: ignore[attr-defined]
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "LDMPipeline"}))
    out, error = run(program, hub, tmp_path / "cache")
    assert out == ""
    assert "is a LDMPipeline, which cannot be served; supported are: " in error
    assert weights(hub) == []


def test_a_hub_that_is_not_reached_is_named_in_one_line(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    _, error = run(INSPECT, hub, tmp_path / "cache")
    assert f"no backbone '{NAME}': not a folder, the hub is not reached" in error
