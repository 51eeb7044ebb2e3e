"""Python processes of our own, which never import from the folder that a person stands in."""

from __future__ import annotations

import sys


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module; `-P` keeps the working folder off its path, where `redis.py` may lie."""
    return [sys.executable, "-P", "-m", name, *arguments]


def python_program(text: str, *arguments: str) -> list[str]:
    """The command that runs a program given as text."""
    return [sys.executable, "-P", "-c", text, *arguments]
