"""Skips tests whose requirements are missing, with the reason and the command that installs them.

Nothing outside the checkout is looked for but in one folder, PAPA_SHARED (beside the checkout when it is not set). It
may hold data sets (data/) and the schemas of KubeRay's and Prometheus' custom resources (crds/).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

_HANDED_ON = "SHARED_OF_THE_TESTS"
SHARED = Path(
    os.environ.get("PAPA_SHARED") or os.environ.get(_HANDED_ON) or Path(__file__).parents[2] / "shared"
).absolute()
os.environ[_HANDED_ON] = str(SHARED)  # to pytest-xdist's processes, which start where PAPA_* variables are removed
SYSTEM_PACKAGES = "make system-packages"


def reason(why: str, command: str) -> str:
    """The reason of a skip; `split` takes it apart again."""
    return f"{why} → {command}"


def split(said: str) -> tuple[str, str]:
    """Why, and the command; "" where none was named."""
    why, _, command = said.removeprefix("Skipped: ").partition(" → ")
    return why, command


def skip(why: str, command: str) -> NoReturn:
    """Skips the test that calls it."""
    pytest.skip(reason(why, command))


def needs_shared(path: str, what: str) -> pytest.MarkDecorator:
    """Skips a test where PAPA_SHARED does not hold `path`."""
    return pytest.mark.skipif(
        not (SHARED / path).exists(), reason=reason(f"{what} is not here", f"PAPA_SHARED=FOLDER make test ({path})")
    )
