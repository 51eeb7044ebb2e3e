"""Compiles the contract into `services/papa_serving/stubs` (messages, services, type stubs): `make stubs`.

protoc names modules after the proto path (`papa/serving/v1`), which would put them into the `papa` library; they are
written below `services/papa_serving/stubs` instead and their imports of one another rewritten to match.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
STUBS = PROTOS.parent / "services" / "papa_serving" / "stubs"
OWN_IMPORT = re.compile(r"\bpapa\.(serving|engine)\.v1\b(?=[ .])")
OWN_MODULE = re.compile(r"(?<=BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')papa\.(?=serving|engine)")


def generate(target: Path = STUBS) -> None:
    """Replaces everything below `target` but its own `__init__.py` by fresh modules."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as out:
        outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        include = [f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}"]
        scripts = Path(sys.executable).parent
        plugins = [f"--plugin={scripts / f'protoc-gen-{kind}'}" for kind in ("mypy", "mypy_grpc")]
        if protoc.main(["protoc", *include, *plugins, *outputs, *sources]) != 0:
            sys.exit("protoc failed")
        for name in ("serving", "engine"):
            shutil.rmtree(target / name, ignore_errors=True)
        for path in sorted(Path(out).rglob("*.py*")):
            _write_module(path, target / path.relative_to(Path(out) / "papa"))


def _write_module(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for package in (target.parent, target.parent.parent):
        (package / "__init__.py").touch()
    lines = source.read_text().splitlines(keepends=True)
    target.write_text("".join(_rewritten(line) for line in lines))


def _rewritten(line: str) -> str:
    """Points imports at the stubs package, and the module that messages say they are from: pickle imports it when Ray
    moves a message between processes. Elsewhere the proto names stand for themselves."""
    if line.startswith(("from papa.", "import papa.")):
        return OWN_IMPORT.sub(r"papa_serving.stubs.\1.v1", line)
    return OWN_MODULE.sub("papa_serving.stubs.", line)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
