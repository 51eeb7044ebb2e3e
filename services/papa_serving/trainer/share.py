"""Which partitions are whose, agreed upon without talking: all trainers compute the same from the list of the live."""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def fair_share(member: str, members: Collection[str], partitions: int) -> frozenset[int]:
    """The partitions of `member`: those for which its score is the highest (rendezvous hashing).

    A member that comes or goes moves only the partitions that it gains or leaves behind.
    """
    everybody = {member, *members}
    return frozenset(p for p in range(partitions) if max(everybody, key=lambda m: (_score(m, p), m)) == member)


def _score(member: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{partition}|{member}".encode(), digest_size=8).digest()
