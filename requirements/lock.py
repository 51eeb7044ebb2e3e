"""`make lock`: resolves pyproject.toml into requirements/*.txt, the exact versions that `make` and CI install.

The locks name versions only, so that they install from whatever sources pip is configured with: no index, no hashes,
no local version labels ("+cpu"). Packages that only torch's CUDA builds need are left out: pip fetches them itself
where the wheel of torch that it chooses asks for them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
LOCKS = {
    "server.txt": ("server", "plots"),
    "gateway.txt": ("gateway",),
    "dev.txt": ("server", "plots", "parquet", "dev"),
}
OPTIONS = ("--strip-extras", "--allow-unsafe", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host")
LOCAL_LABEL = re.compile(r"^([\w.-]+==[^\s+]+)\+\S+", re.MULTILINE)
ITSELF = re.compile(r"^papa-serving @ .*\n(?:    #.*\n)*", re.MULTILINE)
CUDA_PACKAGE = re.compile(r"^(?:nvidia-|cuda-|triton==).*\n(?:    #.*\n)*", re.MULTILINE)


def compile_lock(name: str, extras: tuple[str, ...], arguments: list[str]) -> None:
    """Writes one lock; versions already in it stay unless `arguments` hold --upgrade. Exits where nothing satisfies."""
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", *OPTIONS, *arguments]
    command += [f"--extra={extra}" for extra in extras]
    command += ["--output-file", f"requirements/{name}", "pyproject.toml"]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "CUSTOM_COMPILE_COMMAND": "make lock"}, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    path = PROJECT / "requirements" / name
    path.write_text(portable(path.read_text()))


def portable(lock: str) -> str:
    """The lock without what belongs to the machine that made it, and without this project, whose extras build on each
    other."""
    return CUDA_PACKAGE.sub("", ITSELF.sub("", LOCAL_LABEL.sub(r"\1", lock)))


if __name__ == "__main__":
    for name, extras in LOCKS.items():
        constraints = [] if name == "server.txt" else ["--constraint=requirements/server.txt"]
        compile_lock(name, extras, [*constraints, *sys.argv[1:]])
