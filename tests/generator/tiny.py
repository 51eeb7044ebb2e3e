"""A backbone of a few thousand parameters, and one whose steps the test lets happen one by one."""

from __future__ import annotations

import threading

import torch
from diffusers import UNet2DModel
from torch import Tensor

from papa.denoiser import Conditions, Denoiser
from papa.lora import LoraConfig
from papa.schedule import NoiseSchedule

# Tensors of 64 numbers: a second thread costs more than it brings.
torch.set_num_threads(1)

SHAPE = (1, 8, 8)
PATIENCE = 60.0


def tiny_unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
    )


def tiny_denoiser(rank: int = 2) -> Denoiser:
    return Denoiser(tiny_unet(), NoiseSchedule.linear(), SHAPE, "epsilon", LoraConfig(rank=rank, alpha=2.0 * rank))


def random_weights(denoiser: Denoiser, seed: int, scale: float = 0.1) -> Tensor:
    return torch.randn(denoiser.layout.size, generator=torch.Generator().manual_seed(seed)) * scale


class GatedDenoiser(Denoiser):
    """Waits for a permit before each step and remembers the timesteps and the number of adapters of each."""

    def __init__(self) -> None:
        super().__init__(tiny_unet(), NoiseSchedule.linear(), SHAPE, "epsilon", LoraConfig(rank=2, alpha=4.0))
        self.steps: list[list[int]] = []
        self.adapted: list[int] = []
        self.failing = False
        self._arrivals = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._stepped = threading.Condition()

    def epsilon(
        self, x: Tensor, t: Tensor, adapters: Tensor | None = None, conditions: Conditions | None = None
    ) -> Tensor:
        self._arrivals.release()
        assert self._permits.acquire(timeout=PATIENCE)
        with self._stepped:
            self.steps.append(t.tolist())
            self.adapted.append(0 if adapters is None else len(adapters))
            self._stepped.notify_all()
        if self.failing:
            raise RuntimeError("out of memory, says the test")
        return super().epsilon(x, t, adapters, conditions)

    def arrive(self) -> None:
        """Waits until one more step stands before the gate, with all the rows that it will have."""
        assert self._arrivals.acquire(timeout=PATIENCE)

    def advance(self, steps: int = 1) -> None:
        """Lets that many steps begin, and waits until they have."""
        with self._stepped:
            target = len(self.steps) + steps
            self._permits.release(steps)
            assert self._stepped.wait_for(lambda: len(self.steps) >= target, PATIENCE)

    def open(self) -> None:
        """Lets all further steps happen."""
        self._permits.release(1_000_000)
