"""Image data sets as one pair of arrays, read from a path that the user gives."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from papa.pixels import to_x0


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images x [n, channels, height, width] in [−1, 1] float32, classes y [n] int64."""

    x: Tensor
    y: Tensor


def load_npz(path: Path, split: str = "train") -> LabelledImages:
    """Reads `split` ("train" or "test") of an .npz file.

    Three layouts are known: x_train/y_train/x_test/y_test (Fashion-MNIST); x/y without a split (MNIST, every sixth
    image is then the test split); data/offsets/y, JPEG files end to end (CIFAR-10). Raises KeyError on any other.
    """
    with np.load(path) as arrays:
        if f"x_{split}" in arrays:
            return _scaled(arrays[f"x_{split}"], arrays[f"y_{split}"])
        if "offsets" in arrays:
            return _scaled(_decode_jpegs(arrays["data"], arrays["offsets"]), arrays["y"])
        chosen = (np.arange(len(arrays["x"])) % 6 == 5) == (split == "test")
        return _scaled(arrays["x"][chosen], arrays["y"][chosen])


def _scaled(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> LabelledImages:
    x = to_x0(torch.from_numpy(np.ascontiguousarray(images)))
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return LabelledImages(x.contiguous(), torch.from_numpy(labels.astype(np.int64)))


def _decode_jpegs(data: NDArray[np.uint8], offsets: NDArray[np.integer]) -> NDArray[np.uint8]:
    files = (data[start:end].tobytes() for start, end in pairwise(offsets))
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
