"""Stored items: what the service keeps of a generation so that feedback can refer to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from papa_serving.contracts.attribution import NO_NOTES, Notes
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.vocabulary import Vocabulary


@dataclass(frozen=True)
class StoredItem:
    """An item of one user. `sample` is the packed x0, and `revision` made it ("" for the base). `notes` are the
    caller's on the generation."""

    item_id: str
    sample: bytes
    revision: str
    generation_id: str
    seed: int
    notes: Notes = NO_NOTES


@dataclass(frozen=True)
class BackboneInfo:
    """The record about the deployed backbone that the generator announces.

    `name` is the configured one. `image_shape` is [channels, height, width] in pixels, for latent backbones as well.
    `vocabulary` holds the words of its prompts where they are few.
    """

    backbone_hash: str
    name: str
    image_shape: tuple[int, int, int]
    takes_prompt: bool = False
    vocabulary: Vocabulary = field(default_factory=Vocabulary)


class ItemStore(ABC):
    """Items with a time to live. Every method may raise StorageUnavailable."""

    @abstractmethod
    async def put(self, user: UserKey, items: Sequence[StoredItem]) -> None:
        """Stores the items of one user for the configured time. Raises UserDeleted."""

    @abstractmethod
    async def get(self, user: UserKey, item_id: str) -> StoredItem:
        """Raises ItemNotFound."""

    @abstractmethod
    async def of_user(self, user: UserKey) -> list[StoredItem]:
        """All of a user's items whose time to live has not passed."""

    @abstractmethod
    async def publish_backbone(self, info: BackboneInfo) -> None:
        """Announces the deployed backbone. Raises ValueError when the store belongs to another backbone."""

    @abstractmethod
    async def rename_backbone(self, former: str, info: BackboneInfo) -> bool:
        """Puts `info` in place of the record that names the hash `former`; whether there was such a record."""

    @abstractmethod
    async def backbone_info(self) -> BackboneInfo | None:
        """The announced backbone; None before a generator has started."""

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""
