"""Escapes text from strangers, so that it can neither control a terminal nor forge a line of a log."""

from __future__ import annotations

import re

_CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: escape sequences begin with these
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates of writing direction
    "\u2028\u2029\ud800-\udfff"  # separators of lines and paragraphs, lone surrogates
)
_HARMFUL = re.compile(f"[{_CONTROLS}]")
_HARMFUL_IN_A_LINE = re.compile(f"[{_CONTROLS}\t\n]")


def harmless(text: str, *, lines: bool = False) -> str:
    """Escapes control characters as Python does ("\\\\x1b"). With `lines`, line feeds and tabs stay.

    Characters of any script, joiners (U+200C, U+200D) and emoji are left as they are.
    """
    return (_HARMFUL if lines else _HARMFUL_IN_A_LINE).sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
