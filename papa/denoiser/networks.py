"""How each class of model is called: model, x [n, C, H, W], time [n], the conditions' parts → its prediction, like x.

The time is what diffusers' pipelines tell the network: t of a DDPM, T σ of rectified flow (`NoiseSchedule.told`). A
learnt variance, in channels behind x's, is left out everywhere: the samplers do not use it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from papa.denoiser.conditions import Parts

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
