"""Recommendations: items of a catalogue that are chosen for a user, the taste that they are chosen by, and the memory
of what was recommended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from papa_serving.contracts.catalogue import CatalogueKey, Filter, Metadata
from papa_serving.contracts.identity import UserKey


class Origin(StrEnum):
    """Where a kind of picture comes from."""

    DRAWN = "drawn"
    """What the user's model draws."""
    LIKED = "liked"
    """What the user liked."""
    QUESTION = "question"
    """What would teach most."""
    BACKBONE = "backbone"
    """What the backbone draws, whoever asks."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of picture, by which items are found. `share` is its part of all kinds of its origin, which sum to 1.

    Shape: direction [F] float32.
    """

    origin: Origin
    direction: NDArray[np.float32]
    share: float


@dataclass(frozen=True, eq=False)
class Taste:
    """What is known of a user. `revision` is "" where nothing is; `labels` is 0 where the labels do not say how likely
    an item is liked."""

    revision: str
    labels: int
    kinds: Sequence[Kind]
    teaching: float = 0.0
    """The share of items that may teach, where a request does not say."""

    @property
    def personal(self) -> bool:
        """Whether a kind of the user's own is known, rather than the backbone's alone."""
        return any(kind.origin is not Origin.BACKBONE for kind in self.kinds)


class TasteChanged(Exception):
    """Another revision judges by now than the one whose kinds were named."""


class TasteJudge(ABC):
    """Knows the tastes of users. Raises UserDeleted, EncoderChanged, and what its transport raises."""

    @abstractmethod
    async def taste(self, user: UserKey, encoder: str) -> Taste:
        """The taste of the user's newest revision, whose kinds are directions among the embeddings of `encoder`."""

    @abstractmethod
    async def probabilities(
        self, user: UserKey, encoder: str, embeddings: Sequence[bytes], revision: str
    ) -> NDArray[np.float32]:
        """How likely the user likes each picture by `revision`, the taste's; NaN where that is not known.

        `embeddings` are float16, little endian, by `encoder`. Shape: [n]. Raises TasteChanged.
        """


class SeenItems(ABC):
    """What was recommended to each user lately: a bounded window with a time to live. It goes with its user.

    Raises StorageUnavailable.
    """

    @abstractmethod
    async def of_user(self, user: UserKey, catalogue: CatalogueKey) -> frozenset[str]:
        """The ids of the items within the window."""

    @abstractmethod
    async def add(self, user: UserKey, catalogue: CatalogueKey, item_ids: Sequence[str]) -> frozenset[str]:
        """Adds items as the newest, in one step, and returns those that were not within the window: of two calls at
        once, one gets each. Items beyond the window are forgotten. Raises UserDeleted."""

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""


class Reason(StrEnum):
    """Why an item was chosen."""

    NEAR_DRAWN = "near what your model draws"
    NEAR_LIKED = "near what you liked"
    EXPLORES = "explores"


REASONS = {
    Origin.DRAWN: Reason.NEAR_DRAWN,
    Origin.LIKED: Reason.NEAR_LIKED,
    Origin.QUESTION: Reason.EXPLORES,
    Origin.BACKBONE: Reason.EXPLORES,
}


@dataclass(frozen=True)
class Wish:
    """What is asked for. `exploration` is None for the taste's own (`Taste.teaching`).

    `seed` fixes which kinds get the items that do not divide evenly.
    """

    user: UserKey
    catalogue: CatalogueKey
    count: int
    seed: int = 0
    filters: Sequence[Filter] = ()
    diversity: float = 0.3
    exclude_seen: bool = True
    min_like_probability: float = 0.0
    exploration: float | None = None


@dataclass(frozen=True)
class Recommended:
    """One chosen item. `like_probability` is None where it is not known."""

    item_id: str
    like_probability: float | None
    reason: Reason
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """The chosen items, in the order in which to show them. `personal` is false where the backbone's spread was
    served."""

    items: Sequence[Recommended]
    revision: str
    personal: bool
