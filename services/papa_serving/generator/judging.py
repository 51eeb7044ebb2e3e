"""Predicts the probability that a user likes a finished sample, by the taste head of the serving revision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels, to_x0
from papa_serving.generator.job import Job


@dataclass(frozen=True)
class Judged:
    """The chance of each sample, None for one that is not finite, and what is typical of its region, empty where no
    regions are known."""

    chances: list[float | None]
    typical: list[float]


def like_probabilities(denoiser: Denoiser, rows: Mapping[Job, Sequence[int]], samples: Tensor) -> dict[Job, Judged]:
    """How likely the user of each job likes its samples, for jobs whose adapter has a head.

    Runs the backbone once over all of their samples, as they are stored and learnt from. Belongs to the engine's
    thread. Shape: samples [n, C, H, W]; `rows` holds indexes into it.
    """
    heads = {job: job.adapter.head for job in rows if job.adapter is not None and job.adapter.head is not None}
    if not heads:
        return {}
    mine = [index for job in heads for index in rows[job]]
    features = denoiser.features(_as_stored(denoiser, samples[mine])).to("cpu", torch.float16)
    found, start = dict[Job, Judged](), 0
    for job, head in heads.items():
        end = start + len(rows[job])
        chances, typical = head.probability(features[start:end]).tolist(), head.typical(features[start:end])
        known = [None if math.isnan(chance) else chance for chance in chances]
        found[job] = Judged(known, [] if typical is None else typical.tolist())
        start = end
    return found


def _as_stored(denoiser: Denoiser, samples: Tensor) -> Tensor:
    if denoiser.sample_dtype == torch.uint8:
        return to_x0(to_pixels(samples)).to(samples)
    return samples.to(denoiser.sample_dtype).to(samples)
