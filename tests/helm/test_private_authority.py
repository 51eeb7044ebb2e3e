"""A private authority for all that is reached outside: the chart's variables, given to the clients that heed them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.gateway.support.tokens import Certificates
from tests.helm.rendering import ROOT, example, merged, pod_specs, render

ASKS = {
    "token keys": """
from papa_serving.gateway.auth.keys import RemoteKeys
asyncio.run(RemoteKeys(f"{url}/keys.json", 300.0).candidates("k"))
""",
    "object store": """
from papa_serving.settings import Settings, StoreSettings
from papa_serving.store import open_revisions
async def ask():
    async for _ in open_revisions(Settings(store=StoreSettings(url="s3://bucket/papa"))).holdings():
        pass
asyncio.run(asyncio.wait_for(ask(), 20))
""",
    "model hub": """
from huggingface_hub import hf_hub_download
hf_hub_download("org/model", "model_index.json")
""",
}


class Recorder(BaseHTTPRequestHandler):
    """Answers 404, and remembers that somebody spoke TLS to it."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(certificates: Certificates) -> Iterator[ThreadingHTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.issue("server"))
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    listening.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield listening
    listening.shutdown()
    listening.server_close()


def asked(who: str, server: ThreadingHTTPServer, variables: dict[str, str], folder: Path) -> tuple[list[str], str]:
    """What reached the server, and what the client said."""
    url = f"https://localhost:{server.server_address[1]}"
    outside = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c"}
    done = subprocess.run(
        [sys.executable, "-c", f"import asyncio\nurl = {url!r}\n{ASKS[who]}"],
        env={**os.environ, **outside, "HF_ENDPOINT": url, "HF_HOME": str(folder), "PYTHONPATH": str(ROOT), **variables},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return server.asked, done.stderr  # type: ignore[attr-defined]


@pytest.mark.parametrize("who", ASKS)
def test_the_bundle_of_the_chart_is_trusted(
    who: str, server: ThreadingHTTPServer, certificates: Certificates, tmp_path: Path
) -> None:
    manifests = render(merged(example("production"), {"trustedCa": {"existingSecret": "authorities"}}))
    environment = pod_specs(manifests)["demo-papa-gateway"]["containers"][0]["env"]
    bundle = "/etc/papa/trusted/ca-bundle.crt"
    variables = {each["name"]: str(certificates.ca) for each in environment if each.get("value") == bundle}
    assert variables
    reached, said = asked(who, server, variables, tmp_path)
    assert reached, said


def test_without_it_nobody_is_trusted(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    reached, said = asked("token keys", server, {}, tmp_path)
    assert reached == []
    assert "certificate" in said.lower()
