"""The locks install anywhere, and hold what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from requirements import lock as locking

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted(locking.LOCKS)


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pins = [line.split(" ")[0].split("==") for line in lines if line and line[0] not in " #"]
    return {canonicalize_name(package): version for package, version in pins}


def of_extra(extra: str) -> Iterator[str]:
    """The requirements of an extra, including those of the extras that it builds on."""
    for each in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(each)
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            yield from (below for base in requirement.extras for below in of_extra(base))
        else:
            yield each


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_belongs_to_no_machine(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"^(nvidia-|cuda-|triton)", text, re.MULTILINE)
    assert not re.search(r"--hash|://|--(extra-)?index|find-links|^-e|[a-z]\+[a-z]|\s/", text, re.MULTILINE)


def test_torch_is_pinned_where_it_is_needed_and_only_there() -> None:
    assert {name: locked(name).get("torch") for name in LOCKS} == {
        "dev.txt": "2.13.0",
        "gateway.txt": None,
        "server.txt": "2.13.0",
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_satisfies_what_the_project_asks_for(name: str) -> None:
    asked = [*PROJECT["dependencies"], *(each for extra in locking.LOCKS[name] for each in of_extra(extra))]
    pins = locked(name)
    for requirement in map(Requirement, asked):
        assert Version(pins[canonicalize_name(requirement.name)]) in requirement.specifier, str(requirement)


def test_the_developers_lock_runs_what_the_servers_lock_ships() -> None:
    server, dev = locked("server.txt"), locked("dev.txt")
    assert {package: dev.get(package) for package in server} == server


def test_every_direct_dependency_has_a_row_in_the_readme_that_says_why() -> None:
    section = (ROOT / "README.md").read_text().partition("## What it stands on")[2]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    named = {canonicalize_name(name) for cell in cells for name in re.findall(r"[a-zA-Z0-9-]+", cell)}
    asked = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"] for each in of_extra(extra)),
    ]
    assert {canonicalize_name(Requirement(each).name) for each in asked} - named == set()


def test_what_one_machine_adds_is_taken_out() -> None:
    resolved = (
        "torch==2.13.0+cpu\n    # via diffusers\n"
        "nvidia-cublas==13.4\n    # via\n    #   torch\n"
        "triton==3.5\n    # via torch\n"
        "papa-serving @ file:///somewhere\n    # via papa-serving (pyproject.toml)\n"
        "numpy==2.4.6\n    # via torch\n"
    )
    assert locking.portable(resolved) == "torch==2.13.0\n    # via diffusers\nnumpy==2.4.6\n    # via torch\n"
