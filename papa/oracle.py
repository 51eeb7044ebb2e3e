"""The oracle: a small classifier that plays the simulated shopper and measures alignment.

It never trains an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from papa.backbone.datasets import LabelledImages
from papa.denoiser import SHIPPED
from papa.noise import Domain, Noise, seed_torch


class Oracle(nn.Module):
    """Convolutions at a half and a quarter of the size, then features of 64 numbers, then classes: 0.2 M parameters."""

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 32, features: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(channels, width, stride=2), _block(width, 2 * width), nn.MaxPool2d(2),
            _block(2 * width, 3 * width), _block(3 * width, 3 * width), nn.AdaptiveMaxPool2d(4), nn.Flatten(),
            nn.Linear(3 * width * 16, features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """The features in whose space Fréchet distances are measured. Shape: x [n, C, H, W] in [−1, 1] → [n, 64]."""
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Class logits. Shape: [n, C, H, W] → [n, classes]."""
        out: Tensor = self.head(self.features(x))
        return out

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """The most likely class. Shape: x [n, C, H, W] in [−1, 1] → [n] int64."""
        return torch.cat([self(chunk).argmax(dim=1) for chunk in x.split(256)])

    @torch.no_grad()
    def confidence(self, x: Tensor) -> Tensor:
        """The probability of the most likely class. Shape: [n, C, H, W] → [n]."""
        return torch.cat([self(chunk).softmax(dim=1).amax(dim=1) for chunk in x.split(256)])


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def train_oracle(
    data: LabelledImages, epochs: int = 8, seed: int = 0, report: Callable[[int, float], None] = lambda *_: None
) -> Oracle:
    """Cross-entropy with one-cycle Adam, shifts of up to two pixels as augmentation; `report(epoch, loss)`."""
    seed_torch(seed, Domain.TRAINING)
    random = Noise(seed, Domain.TRAINING, 1)
    oracle = Oracle(channels=data.x.shape[1], classes=int(data.y.max()) + 1)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=1e-3, weight_decay=1e-2)
    batches = math.ceil(len(data.x) / 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        total = 0.0
        for rows in random.permutation(len(data.x)).split(256):
            loss = F.cross_entropy(oracle(_shifted(data.x[rows], random)), data.y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) / batches
        report(epoch + 1, total)
    return oracle.eval()


def _shifted(x: Tensor, random: Noise) -> Tensor:
    down, right = (random.integers(5, 2) - 2).tolist()
    return torch.roll(x, (down, right), dims=(2, 3))


def save_oracle(oracle: Oracle, path: Path) -> None:
    """Half precision, safetensors: less than 1 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in oracle.state_dict().items()},
        path,
    )


def load_oracle(backbone: str = "fashion_mnist", channels: int = 1) -> Oracle:
    """The oracle shipped beside a backbone, or one at a path."""
    path = SHIPPED / backbone / "oracle.safetensors"
    oracle = Oracle(channels=channels)
    oracle.load_state_dict(load_file(path if path.is_file() else Path(backbone)))
    return oracle.eval()
