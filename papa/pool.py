"""The pool: one fixed set of the backbone's own samples, unlabelled, that the updates of all users draw from.

The ideal model of a taste is the backbone restricted to it: p(x) ∝ p_θ*(x) · [x is liked]. The samples that a user has
labelled were drawn from a model on its way there, which resembles p_θ* less and less. A loop that learns only from its
own samples therefore narrows (arXiv 2607.00486, Theorem 4.1). Samples of p_θ* do not have this bias. They are weighted
by the grades that the user's labels predict for them (`papa.taste.Taste.foretold`). The ratio of the two densities also
gives the weight of each labelled sample (`papa.taste.density_ratio`).
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
        """The pool's features as the reference scale for all labels; computed on first use."""
        return Unrated(self.features)


def write_pool(folder: Path, samples: Tensor) -> Path:
    """Writes samples in the type that a replay uses. Shape: [m, C, H, W] uint8."""
    path = folder / POOL_FILE
    path.write_bytes(save({_SAMPLES: samples.contiguous()}))
    return path


def read_pool(folder: Path, shape: tuple[int, int, int]) -> Tensor | None:
    """Reads the samples [m, *shape] uint8 in that folder; None when there is no pool.

    Raises ValueError for a damaged file or the samples of another backbone.
    """
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
