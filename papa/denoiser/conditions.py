"""Prompts and guidance of the rows of a batch, and the enlarged batch that classifier-free guidance needs.

Symbols (classifier-free guidance, Ho & Salimans, arXiv 2207.12598): s = guidance scale, c = condition, ∅ = none;
ε = ε_θ(x, ∅) + s (ε_θ(x, c) − ε_θ(x, ∅)), which at s = 1 is ε_θ(x, c) alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]
"""A model's own inputs by name, each [n, ...]."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """One condition per row. Rows with different prompts and guidance scales can share a batch.

    Shape: `asked` holds c and `against` ∅ (or the negative prompt), by the model's own names, each [n, ...];
    `guidance` is s, [n] float32, on the host, where the rows to run twice are chosen without waiting for the device.
    """

    asked: Parts
    against: Parts
    guidance: Tensor

    def __len__(self) -> int:
        return len(self.guidance)

    @classmethod
    def concat(cls, parts: Sequence[Conditions]) -> Conditions:
        """One batch of all rows, in order."""
        asked, against = (
            {name: torch.cat([getattr(part, side)[name] for part in parts]) for name in getattr(parts[0], side)}
            for side in ("asked", "against")
        )
        return cls(asked, against, torch.cat([part.guidance for part in parts]))

    def select(self, index: Tensor) -> Conditions:
        """The rows `index` [m] int64 (on the host), in that order."""
        sides = (self.asked, self.against)
        asked, against = (
            {name: part.index_select(0, index.to(part.device)) for name, part in side.items()} for side in sides
        )
        return Conditions(asked, against, self.guidance.index_select(0, index))

    def repeat(self, count: int) -> Conditions:
        """Repeats a single condition for `count` rows."""
        return self.select(torch.zeros(count, dtype=torch.int64))


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
        """The guided batch; None if every row has s = 1."""
        n = len(conditions)
        guided = (conditions.guidance != 1).nonzero()[:, 0].tolist()
        if not guided:
            return None
        first = [*range(adapted), *(n + row for row in guided if row < adapted)]
        rest = [*range(adapted, n), *(n + row for row in guided if row >= adapted)]
        scale = conditions.guidance[guided].to(device)
        return cls(n, adapted, torch.tensor(first + rest, device=device), torch.tensor(guided, device=device), scale)

    def spread(self, tensor: Tensor) -> Tensor:
        """Copies each row to all its positions. Shape: [n, ...] → [n + g, ...]."""
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
        order = self.source.argsort()
        asked = output.index_select(0, order[: self.rows])
        against = output.index_select(0, order[self.rows :])
        own = asked.index_select(0, self.guided)
        scale = self.scale.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
        return asked.index_copy(0, self.guided, against + scale * (own - against))
