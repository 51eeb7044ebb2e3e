"""Pipelines of the Stable Diffusion and DiT classes, made on the spot and a few thousand parameters large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from papa.backbone.words import word_tokenizer

WORDS = ("a", "boot", "clothing", "red", "shirt", "sneaker")
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(3)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    ).eval()


def tiny_text(projection: bool = False, seed: int = 4, width: int = 16) -> CLIPTextModel:
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(WORDS)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def text_unet(**more: Any) -> UNet2DConditionModel:
    torch.manual_seed(5)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings | more).eval()


def stable_diffusion(prediction: str = "epsilon") -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text(),
        tokenizer=word_tokenizer(WORDS),
        unet=text_unet(),
        scheduler=DDIMScheduler(**SCHEDULER, prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    unet = text_unet(
        cross_attention_dim=40,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12 + 6 * 4,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text(),
        text_encoder_2=tiny_text(projection=True, seed=6, width=24),
        tokenizer=word_tokenizer(WORDS),
        tokenizer_2=word_tokenizer(WORDS),
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        add_watermarker=False,
    )


def diffusion_transformer() -> DiTPipeline:
    torch.manual_seed(7)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        norm_num_groups=4,
        num_embeds_ada_norm=1000,
    ).eval()
    return DiTPipeline(
        transformer=transformer,
        vae=tiny_vae(),
        scheduler=DDIMScheduler(**SCHEDULER),
    )


def saved(pipeline: Any, folder: Path) -> str:
    pipeline.save_pretrained(folder)
    if isinstance(pipeline, DiTPipeline):
        # As published: diffusers itself reads these names and does not write them.
        index = folder / "model_index.json"
        names = {"3": "boot, ankle boot", "5": "sneaker"}
        index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": names}))
    return str(folder)


def pixels(**more: Any) -> DDPMPipeline:
    """A DDPM of 16 × 16 RGB pictures; `more` are options of its U-Net."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return DDPMPipeline(unet=UNet2DModel(**settings | more), scheduler=DDPMScheduler())


def published_tokenizer(folder: Path) -> None:
    """Turns a saved tokenizer into what the hub holds of Stable Diffusion 1.x: vocab.json and merges.txt alone."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
