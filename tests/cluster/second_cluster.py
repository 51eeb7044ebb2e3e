"""A second Ray cluster beside the first, in a process of its own: what KubeRay starts in an upgrade.

Reads `values` of the release as JSON, prints the port of its generators once they serve, and goes when its input ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.nodes import ROOT, ray_cluster
from tests.cluster.release import Release
from tests.helm.rendering import Manifest
from tests.ports import free_port


@contextmanager
def second_cluster(values: Manifest, environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """The port of its generators."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.second_cluster"],
            env={**environment, "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    with process:
        try:
            process.stdin.write(json.dumps(values) + "\n")
            process.stdin.flush()
            line = next((each for each in process.stdout if each.startswith("port ")), "")
            assert line, log.read_text()
            yield int(line.split()[1])
        finally:
            process.stdin.close()


def main() -> None:
    values = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release = Release(values, folder)
        # One node does for both: its head has the place of a generator.
        with ray_cluster(folder, os.environ, free_port(), release.groups()["generator"]["rayStartParams"]):
            release.deploy()
            print("port", release.port, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
