"""Catalogues: a tenant's real items with the embeddings by which they are found, and the store of both."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

DEFAULT_CATALOGUE = "default"

Value = str | float | bool | tuple[str, ...]
"""A value of an item's metadata: a text, a number, a flag, or several texts such as labels."""

Metadata = Mapping[str, Value]


@dataclass(frozen=True, order=True)
class CatalogueKey:
    """One catalogue of one tenant. Both are the caller's strings and never appear in a key of the store."""

    tenant: str
    name: str

    @property
    def digest(self) -> str:
        """A stable digest of 32 hexadecimal digits, from which keys are built."""
        text = f"{len(self.tenant)}:{self.tenant}{self.name}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Encoder:
    """What embeds pictures: `name` identifies it, and `size` is F, how many numbers it gives of each."""

    name: str
    size: int


@dataclass(frozen=True)
class CatalogueItem:
    """One item. `embedding` holds its features as float16, little endian; `encoder` is the name of what made them.

    `sample` is the packed picture (papa_serving.contracts.samples), b"" for an item that was given as an embedding.
    `fingerprint` identifies the content that the caller gave. `updated_at` is in seconds since the epoch.
    """

    item_id: str
    embedding: bytes
    encoder: str
    metadata: Metadata = field(default_factory=dict)
    sample: bytes = b""
    fingerprint: str = ""
    updated_at: float = 0.0

    @property
    def vector(self) -> NDArray[np.float32]:
        """The embedding. Shape: [F]."""
        return np.frombuffer(self.embedding, dtype="<f2").astype(np.float32)


@dataclass(frozen=True)
class ListedItem:
    """What a list tells of an item. `has_image`: it was given as a picture."""

    item_id: str
    metadata: Metadata
    has_image: bool
    fingerprint: str
    updated_at: float


@dataclass(frozen=True)
class Page:
    """Some items of a catalogue, in the order of their ids. `after` is the id behind which the next page begins, "" on
    the last page. A page may be short, or empty, before the last one: items are deleted while it is read."""

    items: Sequence[ListedItem]
    after: str


@dataclass(frozen=True)
class CatalogueRecord:
    """A catalogue and its size. `encoder` made all of its embeddings."""

    name: str
    items: int
    encoder: str


class Comparison(StrEnum):
    """How a filter compares an item's value with its own."""

    IS = "is"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    HAS = "has"
    """The item's texts contain the filter's text."""


@dataclass(frozen=True)
class Filter:
    """A condition on one key of the metadata: one of `values` compares as asked. An item without the key fails."""

    key: str
    comparison: Comparison
    values: tuple[str | float | bool, ...]


@dataclass(frozen=True)
class Near:
    """An item that a search has found; `similarity` in [0, 1] grows with the cosine of the two embeddings."""

    item_id: str
    similarity: float


class Put(StrEnum):
    """What became of an item that was put."""

    ADDED = "added"
    REPLACED = "replaced"


class Catalogues(ABC):
    """All catalogues of all tenants. Every method may raise StorageUnavailable and CatalogueUnsupported."""

    @abstractmethod
    async def encoder(self, catalogue: CatalogueKey) -> str:
        """The name of the encoder of the catalogue's embeddings; "" for a catalogue without items."""

    @abstractmethod
    async def put(self, catalogue: CatalogueKey, item: CatalogueItem) -> Put:
        """Adds the item or replaces it. It can be found once this returns. Raises EncoderChanged, CatalogueFull."""

    @abstractmethod
    async def delete(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> int:
        """Removes items and returns how many there were. Once this returns, no search finds them."""

    @abstractmethod
    async def get(
        self, catalogue: CatalogueKey, item_ids: Sequence[str], *, pictures: bool = True
    ) -> list[CatalogueItem | None]:
        """The items of these ids, in order; None for one that is not there. Without `pictures` their samples are
        empty."""

    @abstractmethod
    async def embeddings(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[bytes]:
        """The embeddings of these items, in order; b"" for one that is not there."""

    @abstractmethod
    async def fingerprints(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[str]:
        """What identifies the content of these items, in order; "" for one that is not there."""

    @abstractmethod
    async def page(self, catalogue: CatalogueKey, limit: int, after: str) -> Page:
        """At most `limit` items in the order of their ids, those behind `after` ("" = from the first one)."""

    @abstractmethod
    async def of_tenant(self, tenant: str) -> list[CatalogueRecord]:
        """The tenant's catalogues, sorted by name; those without items are left out."""

    @abstractmethod
    async def search(
        self, catalogue: CatalogueKey, vector: NDArray[np.float32], count: int, filters: Sequence[Filter] = ()
    ) -> list[Near]:
        """The nearest items that pass all filters, the nearest first. Fewer than `count` are all that pass.

        Shape: vector [F].
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""
