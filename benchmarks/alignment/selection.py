"""Active selection: of many candidates, the few whose labels teach most."""

from __future__ import annotations

import torch
from torch import Tensor

from papa.denoiser import Denoiser

NEIGHBOURS = 5


def most_informative(denoiser: Denoiser, candidates: Tensor, seen: Tensor, grades: Tensor, count: int) -> Tensor:
    """Indices of `count` candidates, picked greedily by uncertainty times distance to what is picked already.

    The chance of a like is estimated from the nearest rated items in the backbone's own features (inverse-distance
    weighted, with one imagined like and dislike, so that what is unlike everything rated counts as unknown).
    Shape: candidates [n, C, H, W]; seen [m, C, H, W], grades [m] → [count] int64.
    """
    features = denoiser.features(torch.cat([candidates, seen]))
    features = (features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-6)
    mine, rated = features[: len(candidates)], features[len(candidates) :]
    distance = torch.cdist(mine, rated)
    scale = distance.median().clamp(min=1e-6)
    nearest = distance.topk(min(NEIGHBOURS, len(rated)), largest=False)
    weight = torch.exp(-((nearest.values / scale) ** 2))
    likes = (weight * (grades[nearest.indices] > 0)).sum(dim=1) + 0.5
    chance = likes / (weight.sum(dim=1) + 1.0)
    uncertainty = chance * (1 - chance) + 0.05
    picked: list[int] = []
    apart = torch.full((len(mine),), float(scale))
    for _ in range(count):
        score = uncertainty * apart
        score[picked] = -1
        best = int(score.argmax())
        picked.append(best)
        apart = torch.minimum(apart, torch.cdist(mine, mine[best : best + 1])[:, 0])
    return torch.tensor(picked)
