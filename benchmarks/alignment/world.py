"""The backbone, the oracle and the simulated user of a data set."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.alignment.runs import Run
from papa.backbone.datasets import load_npz
from papa.backbone.words import GENERIC
from papa.config import DEFAULT_LORA
from papa.denoiser import Denoiser, load_denoiser, shipped_names
from papa.lora import LoraConfig
from papa.noise import Domain, Noise
from papa.oracle import Oracle, load_oracle
from papa.pipeline_folder import JUDGED_BY
from papa.pixels import to_pixels

DATA = Path(__file__).parents[2] / "data"
"""The folder of the data sets; docs/researcher-guide.md says where each comes from."""

FILES = {
    "fashion_mnist": ("fashion_mnist.npz",),
    "fashion_mnist_text": ("fashion_mnist.npz",),
    "fashion_mnist_flow": ("fashion_mnist.npz",),
    "mnist": ("mnist10k.npz", "mnist.npz"),
    "fashion_mnist_32": ("fashion_mnist_32.npz",),
    "cifar10": ("cifar10_test_jpeg.npz", "cifar10.npz"),
}
"""Each data set's test images; where there are several, those of the committed results come first. A data set without a
shipped backbone has its own in a folder of its name beside the file: `unet` and `scheduler` as `papa backbone train`
writes them, `oracle.safetensors` of `papa backbone oracle`."""

FETCH = {
    "fashion_mnist": "fashion-mnist",
    "fashion_mnist_text": "fashion-mnist",
    "fashion_mnist_flow": "fashion-mnist",
    "mnist": "mnist",
    "cifar10": "cifar-10",
}
"""The names of the data sets in `papa data fetch`."""

MADE = "the commands of docs/researcher-guide.md, 'The benchmark'"

PROMPTS = {"fashion_mnist_text": GENERIC, "fashion_mnist_flow": GENERIC}
"""The prompt of every item, for data sets whose backbone works on latents and takes prompts."""


@dataclass(frozen=True, eq=False)
class World:
    """The environment that all systems share. `real` and `real_classes` are features and classes of the test images;
    `prompt` is the prompt of every item."""

    oracle: Oracle
    real: Tensor
    real_classes: Tensor
    backbone: str
    autocast: torch.dtype | None
    prompt: str = ""

    def denoiser(self, lora: LoraConfig = DEFAULT_LORA) -> Denoiser:
        """The frozen backbone, with room for adapters."""
        return load_denoiser(self.backbone, lora, autocast=self.autocast)


@cache
def world(dataset: str, data: Path, bfloat16: bool) -> World:
    """Raises FileNotFoundError without the data set's file in the folder `data`."""
    path = images_of(dataset, data)
    test = load_npz(path, "test")
    backbone, oracle = dataset, JUDGED_BY.get(dataset, dataset)
    if dataset not in shipped_names():
        backbone, oracle = str(data / dataset), str(data / dataset / "oracle.safetensors")
    judge = load_oracle(oracle, test.x.shape[1])
    with torch.no_grad():
        real = torch.cat([judge.features(chunk) for chunk in test.x.split(500)])
    return World(judge, real, test.y, backbone, torch.bfloat16 if bfloat16 else None, PROMPTS.get(dataset, ""))


def images_of(dataset: str, data: Path) -> Path:
    """The file in the folder `data`. Raises FileNotFoundError, which says how to get it."""
    candidates = [data / name for name in FILES[dataset]]
    for path in candidates:
        if path.is_file():
            return path
    get = f"papa data fetch {FETCH[dataset]} --out {data}" if dataset in FETCH else MADE
    raise FileNotFoundError(f"{candidates[-1]} is missing. Get it with: {get} (--data names another folder)")


class SimulatedUser:
    """Likes exactly the items that the oracle puts into the hidden taste, or grades by size, and errs as told."""

    def __init__(self, run: Run, oracle: Oracle) -> None:
        self.run, self.oracle = run, oracle
        self._errors = Noise(run.seed, Domain.USER)

    def taste(self, step: int) -> tuple[int, ...]:
        """The taste before interaction step `step` (from 0)."""
        return self.run.later_taste if self.run.later_taste and step >= self.run.rounds // 2 else self.run.taste

    def grades(self, images: Tensor, step: int) -> Tensor:
        """Shape: [n, C, H, W] in [−1, 1] → [n] in [−1, 1], not 0."""
        if self.run.score:
            return graded(images, self.run.score)
        liked = torch.isin(self.oracle.classify(images), torch.tensor(self.taste(step)))
        wrong = self._errors.uniform((len(images),)) < self.run.flipped
        return torch.where(liked ^ wrong, 1.0, -1.0)


JPEG_MIDDLE, JPEG_WIDTH = 700.0, 120.0
"""Bytes at which a picture is neither liked nor disliked, and how many more or fewer make a full grade."""


def jpeg_bytes(images: Tensor) -> Tensor:
    """Size of each image as JPEG of quality 95, in bytes. Shape: [n, C, H, W] in [−1, 1] → [n] float32."""
    pixels = to_pixels(images).permute(0, 2, 3, 1).numpy()
    return torch.tensor([float(_jpeg_size(each)) for each in pixels])


def _jpeg_size(pixels: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "JPEG", quality=95)
    return buffer.tell()


def graded(images: Tensor, score: str) -> Tensor:
    """The fine-grained user: "jpeg" likes what compresses well, "jpeg-" what does not; in steps of a tenth, never 0."""
    direction = -1.0 if score.endswith("-") else 1.0
    return never_zero((direction * (JPEG_MIDDLE - jpeg_bytes(images)) / JPEG_WIDTH).clamp(-1, 1))


def never_zero(grade: Tensor) -> Tensor:
    """Rounds grades to tenths, and those that would be 0 to the tenth of their sign; 0 itself counts as liked."""
    tenths = (grade * 10).round() / 10
    return torch.where(tenths == 0, 0.1 * torch.where(grade < 0, -1.0, 1.0), tenths)
