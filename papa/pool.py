"""The backbone's own samples that nobody has rated: one set, which all users' replay draws from.

The ideal model of a taste is the backbone restricted to it, p(x) ∝ p_θ*(x) · [x is liked]. What a user has rated was
shown by a model on its way there and is ever less like p_θ*: a loop that learns from its own samples alone narrows
(arXiv 2607.00486, Theorem 4.1). Samples of p_θ* itself, weighed by what the user's labels foretell of them
(`papa.taste.Taste.foretold`), have no such bias; and where the two sets differ in density it shows how much each shown
sample is to weigh (`papa.taste.density_ratio`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from papa.pipeline_folder import POOL_FILE
from papa.taste import Unrated

_SAMPLES = "samples"


@dataclass(frozen=True, eq=False)
class Pool:
    """Shape: `x0` [m, C, H, W] float32; `features` [m, F] float16, as in a replay."""

    x0: Tensor
    features: Tensor

    @cached_property
    def unrated(self) -> Unrated:
        """What the labels of every user are measured by; the first call works it out."""
        return Unrated(self.features)


def write_pool(folder: Path, samples: Tensor) -> Path:
    """Samples as a replay keeps them. Shape: [m, C, H, W] uint8."""
    path = folder / POOL_FILE
    path.write_bytes(save({_SAMPLES: samples.contiguous()}))
    return path


def read_pool(folder: Path, shape: tuple[int, int, int]) -> Tensor | None:
    """The samples [m, *shape] uint8 in that folder, None where there are none. Raises ValueError for others' samples or
    a damaged file."""
    path = folder / POOL_FILE
    if not path.is_file():
        return None
    try:
        samples = load_file(path).get(_SAMPLES)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if samples is None or samples.dtype != torch.uint8 or samples.shape[1:] != shape:
        found = "nothing" if samples is None else f"{samples.dtype} {tuple(samples.shape)}"
        raise ValueError(f"{path} holds {found}, the backbone's samples are torch.uint8 {shape}")
    return samples
