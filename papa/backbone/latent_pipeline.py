"""The small Stable Diffusion pipeline that `papa backbone train-latent` trains: its parts, and the folder they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
"""The scheduler of Stable Diffusion 1.x and 2.x, with the timestep spacing of papa.sampler."""

FLOW_SCHEDULER: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
"""Rectified flow, in the terms of a scheduler that a StableDiffusionPipeline can use (DPMSolverMultistepScheduler)."""


def new_vae(shape: torch.Size, channels: tuple[int, ...], latent_channels: int) -> AutoencoderKL:
    """A new VAE for images [n, *shape[1:]]; each block but the last halves height and width."""
    blocks = len(channels)
    return AutoencoderKL(
        in_channels=shape[1],
        out_channels=shape[1],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=channels,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=shape[-1],
        mid_block_add_attention=False,
    )


def new_networks(
    shape: torch.Size, channels: tuple[int, ...], width: int, tokenizer: Any
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """A U-Net for latents of [n, *shape[1:]] and a text encoder of two layers, `width` numbers a token."""
    blocks = len(channels)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=(shape[2], shape[3]),
        in_channels=shape[1],
        out_channels=shape[1],
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * blocks,
        up_block_types=("CrossAttnUpBlock2D",) * blocks,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return unet, text


def save_latent_pipeline(
    vae: AutoencoderKL, text: CLIPTextModel, tokenizer: Any, unet: UNet2DConditionModel, folder: Path, flow: bool
) -> None:
    """A standard StableDiffusionPipeline folder, of a U-Net that predicts ε or, with `flow`, ε − x0."""
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**FLOW_SCHEDULER) if flow else DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
