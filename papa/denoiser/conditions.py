"""What the rows of a batch are asked to show, as tensors that the model takes, and how strictly.

Symbols (classifier-free guidance, Ho & Salimans, arXiv 2207.12598): s = guidance scale, c = condition, ∅ = none;
ε = ε_θ(x, ∅) + s (ε_θ(x, c) − ε_θ(x, ∅)), which at s = 1 is ε_θ(x, c) alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Parts = Mapping[str, Tensor]
"""A model's own inputs by name, each [n, ...]."""


class PromptRefused(ValueError):
    """The backbone cannot show what the prompt asks for; the message says what it can."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """One condition per row, each its own: rows of different prompts and scales share a batch.

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
        """`count` rows of the one condition that this is."""
        return self.select(torch.zeros(count, dtype=torch.int64))


class Conditioner(ABC):
    """From prompts to the model's inputs. `modules` are the networks that it runs, part of the backbone's hash."""

    modules: tuple[nn.Module, ...] = ()

    @abstractmethod
    def parts(self, prompt: str) -> Parts:
        """One prompt ("" is none), each part [1, ...]. Raises PromptRefused."""

    def absent(self) -> Parts:
        """∅, where no negative prompt is given."""
        return self.parts("")
