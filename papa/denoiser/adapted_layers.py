"""Which layers of a pipeline's network are adapted where nothing else is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from papa.config import ATTENTION_LORA, DEFAULT_LORA
from papa.lora import LoraConfig, present

_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
MMDIT_LORA = replace(
    ATTENTION_LORA,
    targets=(
        *ATTENTION_LORA.targets, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", *_FEED_FORWARD,
        "ff_context.net.0.proj", "ff_context.net.2", "single_transformer_blocks.*.proj_mlp",
        "single_transformer_blocks.*.proj_out",
    ),
)  # fmt: skip
"""Attention and MLP of both branches (Stable Diffusion 3, FLUX.1), and of FLUX.1's single blocks."""
CROSS_LORA = replace(ATTENTION_LORA, targets=(*ATTENTION_LORA.targets, *_FEED_FORWARD))
"""Attention and MLP of PixArt."""
SANA_LORA = replace(
    ATTENTION_LORA, targets=(*ATTENTION_LORA.targets, "ff.conv_inverted", "ff.conv_point"), widest=False
)
"""Attention and the MLP's convolutions of 1 × 1; the one between is grouped."""
Z_IMAGE_LORA = replace(
    ATTENTION_LORA, targets=(*ATTENTION_LORA.targets, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
)
"""Attention and MLP of Z-Image."""

_LORA: Mapping[str, LoraConfig] = {
    "DDPMPipeline": DEFAULT_LORA,
    "DDIMPipeline": DEFAULT_LORA,
    "PNDMPipeline": DEFAULT_LORA,
    "StableDiffusionPipeline": ATTENTION_LORA,
    "StableDiffusionXLPipeline": ATTENTION_LORA,
    "DiTPipeline": ATTENTION_LORA,
    "PixArtAlphaPipeline": CROSS_LORA,
    "PixArtSigmaPipeline": CROSS_LORA,
    "StableDiffusion3Pipeline": MMDIT_LORA,
    "FluxPipeline": MMDIT_LORA,
    "SanaPipeline": SANA_LORA,
    "ZImagePipeline": Z_IMAGE_LORA,
}


def default_lora(pipeline: str, model: nn.Module) -> LoraConfig:
    """The adapters of a pipeline's network, without the targets that this one lacks. Attention is in all of them."""
    config = _LORA[pipeline]
    return config if config is ATTENTION_LORA else present(config, model)
