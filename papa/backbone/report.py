"""`papa backbone report`: the quality of a backbone, as measured by the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.alignment import frechet_distance
from papa.backbone.datasets import LabelledImages
from papa.denoiser import Denoiser
from papa.noise import Domain, Noise
from papa.oracle import Oracle
from papa.sampler import sample


@dataclass(frozen=True, eq=False)
class BackboneReport:
    """`frechet` is between samples and the test images in the oracle's feature space, `frechet_real` between as many
    training images and the test images (what a perfect model would get); `confidence` is the oracle's mean,
    `confidence_real` that on the test images; `shares` the share of each class among the samples; `samples` [n, C, H,
    W]."""

    frechet: float
    frechet_real: float
    confidence: float
    confidence_real: float
    accuracy: float
    shares: tuple[float, ...]
    samples: Tensor


@torch.no_grad()
def backbone_report(
    denoiser: Denoiser,
    oracle: Oracle,
    train: LabelledImages,
    test: LabelledImages,
    count: int = 1024,
    sampler: str = "dpmpp_2m",
    steps: int = 12,
    progress: Callable[[int], None] = lambda _: None,
) -> BackboneReport:
    """Draws `count` samples (seeds 0 …); `progress` hears how many are done."""
    parts = []
    for start in range(0, count, 64):
        seeds = list(range(start, min(start + 64, count)))
        parts.append(denoiser.decode(sample(denoiser, seeds, None, sampler, steps)))
        progress(start + len(parts[-1]))
    # A data set may be sorted by class, so its first images would not be representative.
    some = Noise(0, Domain.ORDER).permutation(len(train.x))[:count]
    samples, real = torch.cat(parts), train.x[some]
    reference = _features(oracle, test.x)
    classes = oracle.classify(samples)
    return BackboneReport(
        frechet=frechet_distance(_features(oracle, samples), reference),
        frechet_real=frechet_distance(_features(oracle, real), reference),
        confidence=float(oracle.confidence(samples).mean()),
        confidence_real=float(oracle.confidence(test.x).mean()),
        accuracy=float((oracle.classify(test.x) == test.y).double().mean()),
        shares=tuple((torch.bincount(classes, minlength=10).double() / len(classes)).tolist()),
        samples=samples,
    )


def _features(oracle: Oracle, x: Tensor) -> Tensor:
    return torch.cat([oracle.features(chunk) for chunk in x.split(256)])
