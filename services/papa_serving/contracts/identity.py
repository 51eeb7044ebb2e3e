"""Who: tenant and user, and the partition that holds a user's events."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

DEFAULT_TENANT = "default"


@dataclass(frozen=True, order=True)
class UserKey:
    """One user of one tenant; both are the caller's own strings and are never used in a path or a key as they are."""

    tenant: str
    user: str

    @property
    def digest(self) -> str:
        """32 hexadecimal digits, the same for ever: what keys and paths are made of."""
        text = f"{len(self.tenant)}:{self.tenant}{self.user}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def partition(self, partitions: int) -> int:
        """The user's partition, 0 to `partitions` − 1."""
        return partition_of(self.digest, partitions)


def partition_of(digest: str, partitions: int) -> int:
    """The partition of whichever user has this digest: the rule that says where all data of a user lie."""
    return int(digest[:8], 16) % partitions
