"""The backbones of the benchmark: the shipped one, and published sizes with random weights.

Speed and memory do not depend on what the weights are, and a GPU node needs no hub for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.published_pipelines import CONFIGURATIONS
from papa.config import ATTENTION_LORA, DEFAULT_LORA
from papa.denoiser import Denoiser, load_denoiser
from papa.denoiser.conditioning import Conditioner, Parts
from papa.denoiser.networks import text_conditional
from papa.noise import Domain, Noise
from papa.schedule import NoiseSchedule

TOKENS = 77
"""Length of a prompt in tokens, as CLIP's text encoders pad it."""

_BLOCK = 1_000_003
"""Random numbers that the weights repeat: a prime, so that no two rows of a layer begin at the same one."""

_ATTENTION = "CrossAttnDownBlock2D"
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class Size:
    """A published network: the options of its UNet2DConditionModel, and the inputs that it takes beside the latents."""

    unet: Mapping[str, Any]
    picture: int
    """Pixels of a picture's side; its latents have an eighth."""

    added: Mapping[str, int]
    """Further inputs by name, and their length."""

    @property
    def latents(self) -> tuple[int, int, int]:
        """Channels, rows and columns of x."""
        return 4, self.picture // 8, self.picture // 8


PUBLISHED = {
    "sd15": Size(CONFIGURATIONS["Stable Diffusion 1.5"][1]["unet"], 512, {}),
    "sdxl": Size(CONFIGURATIONS["Stable Diffusion XL"][1]["unet"], 1024, {"text_embeds": 1280, "time_ids": 6}),
}
_TINY = {"block_out_channels": (8, 16), "norm_num_groups": 4, "cross_attention_dim": 8, "sample_size": 8}
TINY = {
    "sd15": Size(
        {
            **_TINY,
            "down_block_types": (_ATTENTION, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        },
        64,
        {},
    ),
    "sdxl": Size(
        {
            **PUBLISHED["sdxl"].unet,
            **_TINY,
            "down_block_types": ("DownBlock2D", _ATTENTION),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "attention_head_dim": (2, 4),
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 8 + 6 * 4,
        },
        64,
        {"text_embeds": 8, "time_ids": 6},
    ),
}
"""The same inputs and kinds of layers, small enough for a test."""

TINY_PIXELS = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


class RandomPrompts(Conditioner):
    """In place of text encoders, whose work is done once a prompt and cached: numbers of the right shapes."""

    def __init__(self, size: Size, device: str, dtype: torch.dtype) -> None:
        width = int(size.unet["cross_attention_dim"])
        shapes = {"encoder_hidden_states": (1, TOKENS, width)} | {name: (1, n) for name, n in size.added.items()}
        self._parts = {
            name: Noise(number, Domain.PROBE).normal(shape).to(device, dtype)
            for number, (name, shape) in enumerate(shapes.items())
        }

    def parts(self, prompt: str) -> Parts:
        """The same for every prompt."""
        return self._parts


def network(size: Size, device: str, dtype: torch.dtype) -> nn.Module:
    """A U-Net of that size with random weights, made on the device.

    Drawing billions of numbers takes minutes on a CPU: each layer repeats one block of them, in the range that PyTorch
    draws from.
    """
    from diffusers import UNet2DConditionModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            unet: nn.Module = UNet2DConditionModel(**size.unet)
    finally:
        torch.set_default_dtype(before)
    unet = unet.requires_grad_(False).eval().to_empty(device=device)
    block = torch.rand(_BLOCK, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).to(device)
    for layer in unet.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5  # Kaiming's uniform distribution as PyTorch's layers take it
            for numbers in layer.parameters(recurse=False):
                _repeat((block[: numbers.numel()] * bound).to(dtype), numbers.view(-1))
        elif next(layer.parameters(recurse=False), None) is not None:
            layer.reset_parameters()  # type: ignore[operator]
    return unet


def _repeat(block: Tensor, numbers: Tensor) -> None:
    """Fills `numbers` with the block, as often as it takes."""
    whole = len(numbers) // len(block) * len(block)
    numbers[:whole].view(-1, len(block)).copy_(block)
    numbers[whole:].copy_(block[: len(numbers) - whole])


def denoiser(name: str, device: str, dtype: torch.dtype, tiny: bool) -> Denoiser:
    """`shipped` is the product's own in `dtype` products; `sd15` and `sdxl` have random weights of that type."""
    if name == "shipped" and tiny:
        from diffusers import UNet2DModel

        unet = UNet2DModel(**TINY_PIXELS).to(device)
        schedule = NoiseSchedule.from_diffusers(_SCHEDULE)
        return Denoiser(unet, schedule, (1, 8, 8), "epsilon", DEFAULT_LORA, None if dtype == torch.float32 else dtype)
    if name == "shipped":
        return load_denoiser("fashion_mnist", DEFAULT_LORA, device, autocast=None if dtype == torch.float32 else dtype)
    return of_size((TINY if tiny else PUBLISHED)[name], device, dtype)


def of_size(size: Size, device: str, dtype: torch.dtype) -> Denoiser:
    """A Stable Diffusion of that size, with random weights and prompts."""
    return Denoiser(
        network(size, device, dtype),
        NoiseSchedule.from_diffusers(_SCHEDULE),
        size.latents,
        "epsilon",
        ATTENTION_LORA,
        network=text_conditional,
        conditioner=RandomPrompts(size, device, dtype),
    )
