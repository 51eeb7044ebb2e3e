"""Regions of a backbone's samples: the kinds of pictures that it draws, found without labels.

A taste head is surer of some kinds than of others: a hundred labels tell bags from all else, and coats from pullovers
hardly. One threshold for all would serve bags alone to who likes both. So a candidate is compared with what is typical
of the liked samples of its own region, which keeps on a page the kinds that are liked with less certainty (the aim of
calibrated recommendations: Steck, RecSys 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from papa.noise import Domain, Noise

COUNT = 16
"""Regions of a pool."""
ROUNDS = 30
"""The most rounds of Lloyd's algorithm; it mostly ends earlier."""
CERTAIN, RAISED = 0.75, 1.4


@dataclass(frozen=True, eq=False)
class Regions:
    """Every sample is of the region whose centre is nearest. Shape: centres [k, F], of standardised features."""

    centres: Tensor

    @classmethod
    def of(cls, z: Tensor, count: int = COUNT) -> Regions:
        """Clusters samples by k-means, from the same first centres each time (Lloyd, IEEE Trans. Inf. Theory 28, 1982).

        A pool of fewer samples has as many regions as samples. Shape: z [m, F].
        """
        count = min(count, len(z))
        order = Noise(0, Domain.ORDER).uniform((len(z),)).argsort()
        centres, before = z[order[:count]], torch.full((len(z),), -1)
        for _ in range(ROUNDS):
            nearest = torch.cdist(z, centres).argmin(1)
            if torch.equal(nearest, before):
                break
            before = nearest
            own = [z[nearest == each] for each in range(count)]
            centres = torch.stack([part.mean(0) if len(part) else centres[each] for each, part in enumerate(own)])
        return cls(centres)

    def find(self, z: Tensor) -> Tensor:
        """The region of each sample. Shape: [n, F] → [n] int64."""
        return torch.cdist(z, self.centres.to(z)).argmin(1)

    def sums(self, region: Tensor, values: Tensor) -> Tensor:
        """The sum of the values in each region. Shape: region [n] int64, values [n] → [k] float64."""
        total = torch.zeros(len(self.centres), dtype=torch.float64)
        return total.index_add(0, region, values.double())


def typical_chances(regions: Regions, z: Tensor, chance: Tensor) -> Tensor:
    """√(m_r m): what is typical of the liked samples of each region r, drawn halfway to what is typical of all.

    m = Σ g² / Σ g is the mean chance of a sample drawn with a probability proportional to g(x) = P(liked | x), m_r the
    same within a region. m_r alone would accept the dislikes of a region that nobody likes; m alone is one threshold
    for all. Where even the highest is below `CERTAIN`, the head is unsure of everything and draws of a doubtful chance
    are no better than others: all are raised, the highest to `CERTAIN`, but by no more than `RAISED`.

    Shape: z [m, F], chance [m] in (0, 1) → [k] float32 in (0, 1).
    """
    region, g = regions.find(z), chance.double().clamp(min=1e-6)
    overall = g.square().sum() / g.sum()
    own = regions.sums(region, g)
    within = torch.where(own > 0, regions.sums(region, g.square()) / own.clamp(min=1e-6), overall)
    typical = (within * overall).sqrt()
    return (typical * (CERTAIN / typical.max()).clamp(1.0, RAISED)).float()
