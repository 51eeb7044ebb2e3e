"""A backbone small enough to differentiate in milliseconds, with every kind of adapted layer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.lora import LoraConfig
from papa.noise import Noise
from papa.pool import StoredPool
from papa.schedule import NoiseSchedule
from papa.updating import Labels, update

# Tensors of 64 numbers: a second thread costs more than it brings.
torch.set_num_threads(1)


def tiny_unet(seed: int = 0, sample_size: int = 8) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=sample_size,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
    )


def tiny_denoiser(seed: int = 0, rank: int = 2, frozen_a: bool = True) -> Denoiser:
    lora = LoraConfig(rank=rank, alpha=2 * rank, frozen_a=frozen_a)
    return Denoiser(tiny_unet(seed), NoiseSchedule.linear(), (1, 8, 8), "epsilon", lora)


def random_adapters(denoiser: Denoiser, count: int, seed: int = 1, scale: float = 0.1) -> torch.Tensor:
    return torch.randn(count, denoiser.layout.size, generator=torch.Generator().manual_seed(seed)) * scale


def drawn_by(
    denoiser: Denoiser, given: Labels, config: UpdateConfig, monkeypatch: pytest.MonkeyPatch
) -> list[torch.Tensor]:
    """The probabilities by which a first update draws likes, then dislikes, from its replay and the pool."""
    seen: list[torch.Tensor] = []
    choice = Noise.choice

    def noting(noise: Noise, probabilities: torch.Tensor, count: int) -> torch.Tensor:
        seen.append(probabilities)
        return choice(noise, probabilities, count)

    with monkeypatch.context() as patched:
        patched.setattr(Noise, "choice", noting)
        update(denoiser, new_adapter(denoiser), given, replace(config, steps=1), 0)
    return seen


def save_tiny_backbone(folder: Path) -> Path:
    DDPMPipeline(unet=tiny_unet(), scheduler=DDPMScheduler()).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: object) -> None:
    """Changes fields of a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def shades(*values: int) -> torch.Tensor:
    """Pictures of nearly one shade each. Shape: [n, 1, 8, 8] uint8."""
    noise = torch.randint(-4, 5, (len(values), 1, 8, 8), generator=torch.Generator().manual_seed(len(values)))
    return (torch.tensor(values)[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8)


def with_pool(samples: torch.Tensor | None) -> Denoiser:
    pool = None if samples is None else StoredPool(samples)
    return Denoiser(tiny_unet(), NoiseSchedule.linear(), (1, 8, 8), "epsilon", LoraConfig(rank=2), unrated=pool)


def likes_bright() -> Labels:
    return Labels(shades(*[240] * 6, *[15] * 6), torch.tensor([1.0] * 6 + [-1.0] * 6))
