"""The adapter of one user: the weights that are served, and the state from which learning continues."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.noise import Domain, Noise
from papa.replay import Replay
from papa.taste import Head


@dataclass(frozen=True, eq=False)
class Adapter:
    """The content of a revision.

    `weights` [P] float32 are what samples are made with. They are a running average of the iterates of all updates;
    `iterate` [P] is the newest of them, from which learning goes on (None: from `weights`). `replay` holds the labels,
    `head` what they say of any sample (None where they do not say it yet, or the adapter is of a former release).
    """

    weights: Tensor
    replay: Replay
    iterate: Tensor | None = None
    head: Head | None = None


def new_adapter(denoiser: Denoiser, seed: int = 0) -> Adapter:
    """A fresh adapter that changes nothing yet (B = 0), with an empty replay."""
    weights = denoiser.layout.initial(Noise(seed, Domain.ADAPTER))
    empty = torch.zeros(0, *denoiser.sample_shape, dtype=denoiser.sample_dtype)
    return Adapter(weights, Replay(empty, torch.zeros(0), torch.zeros(0, denoiser.feature_size, dtype=torch.float16)))
