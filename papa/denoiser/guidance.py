"""Guided and unguided rows in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from papa.denoiser.conditions import Conditions, Parts


@dataclass(frozen=True, eq=False)
class Guided:
    """A batch of n rows as the model runs it: each guided row a second time, against its negative prompt.

    Rows with an adapter come first there as well, because the adapters belong to the first rows of a batch: the
    `adapted` ones, their copies, then the others and theirs. `source` [n + g] is the row of the batch for a row itself
    and n + row for its copy.
    """

    rows: int
    adapted: int
    source: Tensor
    guided: Tensor
    scale: Tensor

    @classmethod
    def of(cls, conditions: Conditions, adapted: int, device: torch.device) -> Guided | None:
        """None where no row is guided, s = 1."""
        n = len(conditions)
        guided = (conditions.guidance != 1).nonzero()[:, 0].tolist()
        if not guided:
            return None
        first = [*range(adapted), *(n + row for row in guided if row < adapted)]
        rest = [*range(adapted, n), *(n + row for row in guided if row >= adapted)]
        scale = conditions.guidance[guided].to(device)
        return cls(n, adapted, torch.tensor(first + rest, device=device), torch.tensor(guided, device=device), scale)

    def spread(self, tensor: Tensor) -> Tensor:
        """Each row, and its copies. Shape: [n, ...] → [n + g, ...]."""
        return tensor.index_select(0, self.source % self.rows)

    def spread_adapters(self, adapters: Tensor) -> Tensor:
        """Shape: [m, P] → [m + guided rows among the first m, P]."""
        copies = int((self.guided < self.adapted).sum())
        return adapters.index_select(0, self.source[: self.adapted + copies] % self.rows)

    def parts(self, conditions: Conditions) -> Parts:
        """c for a row, ∅ for its copy. Shape: [n + g, ...] each."""
        return {
            name: torch.cat([part, conditions.against[name]]).index_select(0, self.source)
            for name, part in conditions.asked.items()
        }

    def joined(self, output: Tensor) -> Tensor:
        """ε_∅ + s (ε_c − ε_∅). Shape: [n + g, ...] → [n, ...]."""
        place = self.source.argsort()
        asked = output.index_select(0, place[: self.rows])
        against = output.index_select(0, place[self.rows :])
        own = asked.index_select(0, self.guided)
        scale = self.scale.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
        return asked.index_copy(0, self.guided, against + scale * (own - against))
