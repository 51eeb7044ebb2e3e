"""The catalogue of the experiments: a data set's real test pictures, embedded as the service embeds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.alignment.world import images_of
from papa.backbone.datasets import load_npz
from papa.denoiser import Denoiser, load_denoiser
from papa.oracle import load_oracle
from papa.pipeline_folder import JUDGED_BY
from papa.pixels import to_pixels, to_x0
from papa.pool import Pool

AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Stock:
    """Item i is test picture i. `pool` is the backbone's; `classes` are those by the oracle, which plays the shopper.

    Shape: features [n, F] float16; classes [n].
    """

    pool: Pool | None
    features: Tensor
    classes: Tensor


@cache
def stock(dataset: str, data: Path, kept: Path) -> Stock:
    """Embeds the pictures once and keeps the embeddings in the folder `kept`, by what they depend on.

    Raises FileNotFoundError without the data set's file in the folder `data`.
    """
    test = load_npz(images_of(dataset, data), "test")
    denoiser = load_denoiser(dataset)
    samples = to_pixels(test.x)
    parts = (denoiser.backbone_hash.encode(), samples.numpy().tobytes())
    path = kept / f"{dataset}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.safetensors"
    if not path.is_file():
        unrated = samples[:1] if denoiser.unrated is None else denoiser.unrated.samples
        kept.mkdir(parents=True, exist_ok=True)
        save_file({"features": _embedded(denoiser, samples), "pool": _embedded(denoiser, unrated)}, path)
    oracle = load_oracle(JUDGED_BY.get(dataset, dataset), test.x.shape[1])
    tensors = load_file(path)
    return Stock(_pool(denoiser, tensors["pool"]), tensors["features"], oracle.classify(test.x))


def _embedded(denoiser: Denoiser, samples: Tensor) -> Tensor:
    return torch.cat([denoiser.features(to_x0(part)).half() for part in samples.split(AT_ONCE)])


def _pool(denoiser: Denoiser, features: Tensor) -> Pool | None:
    """The backbone's pool with its features, which were kept beside the pictures'."""
    given = denoiser.unrated
    return None if given is None else Pool(to_x0(given.samples), features, given.first_seed)
