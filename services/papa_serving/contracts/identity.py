"""Tenants and users, and the partition that holds a user's events."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

DEFAULT_TENANT = "default"

ID_RULE = "no control characters, line separators or marks that turn the direction of text"
"""The rule of `is_id_text`, in words."""

_JOINERS = frozenset("\u200c\u200d")
_EMOJI_TAGS = range(0xE0020, 0xE0080)


def is_id_text(text: str) -> bool:
    """Whether this text may be an id. It allows all written language and forbids characters that deceive a reader.

    Allowed are printable characters, spaces of every kind, the joiners of Persian, Indic scripts and emoji (ZWNJ, ZWJ),
    the tags of flags, and characters that this Python's Unicode does not know yet. Forbidden are C0 and C1 controls,
    line and paragraph separators, bidirectional controls, other invisible formatting, surrogates and private use.
    """
    return all(character.isprintable() or _is_invisible_but_fine(character) for character in text)


def _is_invisible_but_fine(character: str) -> bool:
    code, category = ord(character), unicodedata.category(character)
    if category == "Cn":
        return not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE or 0xE0000 <= code <= 0xE0FFF)
    return category == "Zs" or character in _JOINERS or code in _EMOJI_TAGS


@dataclass(frozen=True, order=True)
class UserKey:
    """One user of one tenant. Both are the caller's strings and never appear in a path or key."""

    tenant: str
    user: str

    @property
    def digest(self) -> str:
        """A stable digest of 32 hexadecimal digits, from which keys and paths are built."""
        text = f"{len(self.tenant)}:{self.tenant}{self.user}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def partition(self, partitions: int) -> int:
        """The user's partition, 0 to `partitions` − 1."""
        return partition_of(self.digest, partitions)


def partition_of(digest: str, partitions: int) -> int:
    """The partition of the user with this digest: the only rule that places a user's data."""
    return int(digest[:8], 16) % partitions
