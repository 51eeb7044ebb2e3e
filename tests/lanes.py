"""Which tests may run at the same time where pytest runs them in several processes (`-n`).

A file's tests stay together, since many build on one another. Files that start a Ray share one lane, so that there is
never more than one Ray beside the light tests: its start takes both cores and gigabytes of memory. That lane and the
longest files come first, so that no process is left alone with them at the end.
"""

from __future__ import annotations

from xdist.scheduler.loadscope import LoadScopeScheduling

RAY = (
    "cluster", "deploy/test_live.py", "generator/test_deployment.py",
    "local/test_service.py", "loop", "packaging/test_wheel.py", "playground/test_page.py", "trainer/test_actor.py",
)  # fmt: skip
"""The beginnings of the paths, below this folder, of files that start a Ray."""

LONG = (
    "architecture/test_checks.py", "attack", "docs/test_code_blocks.py", "benchmarks", "chaos", "docs/test_site.py",
    "helm/test_manifests.py", "local/test_backbone_check.py",
)  # fmt: skip
"""The same of files without Ray that take half a minute or more, the longest first."""


class Lanes(LoadScopeScheduling):
    """Hands each process one lane after another."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid.partition("::")[0].removeprefix("tests/"))


def lane(path: str) -> str:
    """The lane of a test file, by its path below this folder."""
    return "ray" if path.startswith(RAY) else path


def position(path: str) -> int:
    """When a file's turn is: the lane of Ray, then the long ones, then all others."""
    if path.startswith(RAY):
        return -1
    return next((index for index, begins in enumerate(LONG) if path.startswith(begins)), len(LONG))
