"""Which names a revision and its files may have, so that a path can be made of them."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def plain(name: str) -> str:
    """The name itself; a ValueError unless it is letters, digits, dots, dashes and underscores, no dot first."""
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name of a revision or of its file")
    return name
