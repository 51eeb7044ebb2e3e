"""What each class of network needs: how it is called, and which of its layers are adapted where nothing else is said.

A call takes the model, x [n, C, H, W], time [n] and the conditions' parts, and gives a prediction like x. The time is
what diffusers' pipelines tell the network: t of a DDPM, T σ of rectified flow (`NoiseSchedule.told`). A learnt
variance, in channels behind x's, is left out everywhere: the samplers do not use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from papa.config import ATTENTION_LORA, DEFAULT_LORA
from papa.denoiser.conditioning import Parts
from papa.lora import LoraConfig, present

Network = Callable[[nn.Module, Tensor, Tensor, Parts], Tensor]

TRAINED_TIMESTEPS = 1000
"""T of FLUX and Z-Image, which are told σ instead of T σ."""


def unconditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """UNet2DModel."""
    output: Tensor = model(x, t).sample
    return output[:, : x.shape[1]]


def text_conditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """UNet2DConditionModel. All parts except the text's hidden states are added conditions (SDXL)."""
    added = {name: part for name, part in parts.items() if name != "encoder_hidden_states"}
    tokens = parts["encoder_hidden_states"]
    output: Tensor = model(x, t, encoder_hidden_states=tokens, added_cond_kwargs=added or None).sample
    return output[:, : x.shape[1]]


def class_conditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """DiTTransformer2DModel."""
    output: Tensor = model(x, timestep=t, class_labels=parts["class_labels"]).sample
    return output[:, : x.shape[1]]


def pixart(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """PixArtTransformer2DModel (arXiv 2310.00426, 2403.04692)."""
    output: Tensor = model(
        x,
        timestep=t,
        encoder_hidden_states=parts["encoder_hidden_states"],
        encoder_attention_mask=parts["encoder_attention_mask"],
        added_cond_kwargs={name: parts.get(name) for name in ("resolution", "aspect_ratio")},
    ).sample
    return output[:, : x.shape[1]]


def sana(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """SanaTransformer2DModel (arXiv 2410.10629)."""
    scale = float(model.config.timestep_scale)  # type: ignore[union-attr, arg-type]
    output: Tensor = model(
        x,
        timestep=t * scale,
        encoder_hidden_states=parts["encoder_hidden_states"],
        encoder_attention_mask=parts["encoder_attention_mask"],
    ).sample
    return output[:, : x.shape[1]]


def stable_diffusion_3(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """SD3Transformer2DModel (arXiv 2403.03206)."""
    output: Tensor = model(
        hidden_states=x,
        timestep=t,
        encoder_hidden_states=parts["encoder_hidden_states"],
        pooled_projections=parts["pooled_projections"],
    ).sample
    return output


def flux(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """FluxTransformer2DModel: latents in packs of 2 × 2, with their row and column for the rotary embedding."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    tokens = parts["encoder_hidden_states"]
    output: Tensor = model(
        hidden_states=packed(x),
        timestep=t / TRAINED_TIMESTEPS,
        guidance=parts.get("guidance"),
        pooled_projections=parts["pooled_projections"],
        encoder_hidden_states=tokens,
        txt_ids=tokens.new_zeros(tokens.shape[1], 3),
        img_ids=_places(height, width).to(tokens),
    ).sample
    return unpacked(output, height, width)


def packed(x: Tensor) -> Tensor:
    """Shape: [n, C, 2h, 2w] → [n, h w, 4 C]."""
    return torch.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Shape: [n, h w, 4 C] → [n, C, 2h, 2w]."""
    return torch.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), 2)


def z_image(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """ZImageTransformer2DModel: it takes lists, the time from noise to picture, and predicts x0 − ε."""
    captions = [
        tokens[kept]
        for tokens, kept in zip(parts["encoder_hidden_states"], parts["attention_mask"].bool(), strict=True)
    ]
    time = (TRAINED_TIMESTEPS - t) / TRAINED_TIMESTEPS
    # In float32, as in its pipeline: the network multiplies it by 1000, where bfloat16 tells only every fourth apart.
    output: list[Tensor] = model(list(x.unsqueeze(2).unbind(0)), time.float(), captions, return_dict=False)[0]
    return -torch.stack(output).squeeze(2)


def _places(height: int, width: int) -> Tensor:
    """(0, row, column) of each pack. Shape: [h w, 3]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)


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
