"""The simulated shopper: likes items whose class, according to the oracle, is in the hidden taste."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from papa_serving.client import Item
from papa_serving.contracts.samples import x0_of_pixels

if TYPE_CHECKING:
    from papa.oracle import Oracle


class Shopper:
    """Sees only pictures, as a person would; `taste` is a set of the oracle's classes."""

    def __init__(self, oracle: Oracle, taste: Collection[int]) -> None:
        self._oracle, self.taste = oracle, frozenset(taste)

    def classes(self, items: Sequence[Item]) -> NDArray[np.int64]:
        """The class of each picture. Shape: [n]."""
        import torch

        x = torch.from_numpy(x0_of_pixels(np.stack([item.numpy() for item in items])))
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
        seen: NDArray[np.int64] = self._oracle.classify(x).numpy()
        return seen

    def likes(self, items: Sequence[Item]) -> list[bool]:
        """Whether each item shows a class of the taste."""
        return [int(each) in self.taste for each in self.classes(items)]
