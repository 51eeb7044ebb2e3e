"""`papa version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from papa_serving.cli.output import AsJson, print_fields, print_json

PACKAGES = ("grpcio", "torch", "diffusers", "ray", "redis")


def version(json: AsJson = False) -> None:
    """The versions of this product and of what it stands on."""
    versions = {"papa": _installed("papa-serving"), "python": platform.python_version()}
    versions |= {package: _installed(package) for package in PACKAGES}
    if json:
        print_json(versions)
    else:
        print_fields(versions)


def _installed(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return "not installed"
