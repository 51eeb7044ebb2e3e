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
from papa.regions import Regions
from papa.taste import Unrated

FIRST_SEED = 2**53 - 2**20
"""The seed of a pool's first sample; sample i has this seed + i.

They are ordinary seeds of items, which nobody meets by chance. So an item that is there to teach can be a sample of the
pool: the same one with the sampler and steps that drew the pool (`papa.backbone.draw_pool`), by others one like it."""
_SAMPLES, _SEED = "samples", "first_seed"


@dataclass(frozen=True, eq=False)
class Pool:
    """Shape: `x0` [m, C, H, W] float32; `features` [m, F] float16, as in a replay. Sample i is what the backbone draws
    from seed `first_seed` + i by the default sampler; None in pools of before these seeds."""

    x0: Tensor
    features: Tensor
    first_seed: int | None = None

    @cached_property
    def unrated(self) -> Unrated:
        """The pool's features as the reference scale for all labels; computed on first use."""
        return Unrated(self.features)

    @cached_property
    def regions(self) -> Regions:
        """The kinds of samples that the backbone draws; computed on first use."""
        return Regions.of(self.unrated.z)


@dataclass(frozen=True, eq=False)
class StoredPool:
    """A pool without its features. Shape: samples [m, C, H, W] uint8."""

    samples: Tensor
    first_seed: int | None = None


def write_pool(folder: Path, pool: StoredPool) -> Path:
    """Writes samples in the type that a replay uses, and their first seed."""
    path = folder / POOL_FILE
    seed = {} if pool.first_seed is None else {_SEED: torch.tensor([pool.first_seed])}
    path.write_bytes(save({_SAMPLES: pool.samples.contiguous(), **seed}))
    return path


def read_pool(folder: Path, shape: tuple[int, int, int]) -> StoredPool | None:
    """Reads the pool in that folder, of samples of that shape; None when there is none.

    Raises ValueError for a damaged file or the samples of another backbone.
    """
    path = folder / POOL_FILE
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    samples, seed = tensors.get(_SAMPLES), tensors.get(_SEED)
    if samples is None or samples.dtype != torch.uint8 or samples.shape[1:] != shape:
        found = "nothing" if samples is None else f"{samples.dtype} {tuple(samples.shape)}"
        raise ValueError(f"{path} holds {found}, the backbone's samples are torch.uint8 {shape}")
    if seed is not None and (seed.dtype != torch.int64 or seed.shape != (1,) or not 0 <= int(seed) < 2**62):
        raise ValueError(f"{path}: {_SEED} is {seed.dtype} {tuple(seed.shape)}, not one torch.int64 below 2^62")
    return StoredPool(samples, None if seed is None else int(seed))
