"""Loads a denoiser from a diffusers folder, by the class of its pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from papa.backbone.vocabulary_file import read_vocabulary
from papa.denoiser.adapted_layers import default_lora
from papa.denoiser.components import clip_encoder, flow_process, latent_space, load_component, noise_process
from papa.denoiser.conditioners import ClassConditioner, Conditioner, SdxlConditioner, TextConditioner
from papa.denoiser.identity import network_options
from papa.denoiser.latents import LatentSpace
from papa.denoiser.networks import class_conditional, text_conditional, unconditional
from papa.denoiser.text_transformers import TEXT_TRANSFORMERS
from papa.denoiser.wrapper import Denoiser, Prediction
from papa.lora import LoraConfig
from papa.noise import Domain, Noise
from papa.pipeline_folder import BackboneRefused, PipelineFolder, inspect_folder, resolve_backbone, sample_size
from papa.pool import read_pool
from papa.schedule import NoiseSchedule


def load_denoiser(
    backbone: str,
    lora: LoraConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> Denoiser:
    """Loads a shipped name, a diffusers folder or a hub id, and runs it once: what returns can be served and trained.

    `lora` None takes the default for the backbone's class: attention layers, and for small pixel U-Nets convolutions as
    well. `dtype` is the type of the weights, `autocast` that of products and convolutions (see Denoiser).
    `channels_last` stores the weights of convolutions, and so the activations, with the channels of a pixel together.

    Raises FileNotFoundError when `backbone` is none of them, BackboneRefused (a ValueError) when it cannot be served.
    """
    folder = inspect_folder(resolve_backbone(backbone))
    denoiser = _LOADERS[folder.pipeline](folder, lora)
    denoiser.autocast = autocast
    if device == "cpu":
        plain_attention(denoiser.model)
    denoiser.to(device, dtype)
    if channels_last:
        for weights in denoiser.model.parameters():
            if weights.ndim == 4:
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    try_out(denoiser, str(folder.path))
    return denoiser


def _pixel_unet(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import UNet2DModel

    schedule, prediction = noise_process(folder, pixels=True)
    unet = load_component(folder, "unet", UNet2DModel)
    shape = (int(unet.config.in_channels), *sample_size(folder))
    return Denoiser(
        unet,
        schedule,
        shape,
        prediction,
        lora or default_lora(folder.pipeline, unet),
        network=unconditional,
        unrated=read_pool(folder.path, shape),
        description={"pixels": network_options(unet)},
    )


def _text_unet(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import UNet2DConditionModel

    latents = latent_space(folder)
    conditioner, description = _text(folder, latents)
    schedule: NoiseSchedule
    prediction: Prediction
    if folder.flow:
        # A solver's shift is fixed: the size of the picture does not matter.
        flow = flow_process(folder, tokens=0)
        schedule, prediction, description["steps"] = flow, "flow_prediction", asdict(flow)
    else:
        schedule, prediction = noise_process(folder, pixels=False)
    unet = load_component(folder, "unet", UNet2DConditionModel)
    return Denoiser(
        unet,
        schedule,
        (latents.channels, *sample_size(folder)),
        prediction,
        lora or default_lora(folder.pipeline, unet),
        network=text_conditional,
        conditioner=conditioner,
        latents=latents,
        description={"text": network_options(unet), "vae": network_options(latents.vae), **description},
        vocabulary=read_vocabulary(folder.path),
    )


def _class_transformer(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import DiTTransformer2DModel

    schedule, prediction = noise_process(folder, pixels=False)
    model = load_component(folder, "transformer", DiTTransformer2DModel)
    latents = latent_space(folder)
    names = folder.index.get("id2label") or {}
    return Denoiser(
        model,
        schedule,
        (latents.channels, *sample_size(folder)),
        prediction,
        lora or default_lora(folder.pipeline, model),
        network=class_conditional,
        conditioner=ClassConditioner(names, model.config.num_embeds_ada_norm),
        latents=latents,
        description={"classes": network_options(model), "vae": network_options(latents.vae), "names": names},
    )


_LOADERS: Mapping[str, Callable[[PipelineFolder, LoraConfig | None], Denoiser]] = {
    "DDPMPipeline": _pixel_unet,
    "DDIMPipeline": _pixel_unet,
    "PNDMPipeline": _pixel_unet,
    "StableDiffusionPipeline": _text_unet,
    "StableDiffusionXLPipeline": _text_unet,
    "DiTPipeline": _class_transformer,
    **TEXT_TRANSFORMERS,
}


def _text(folder: PipelineFolder, latents: LatentSpace) -> tuple[Conditioner, dict[str, Any]]:
    """The conditioner of a Stable Diffusion class, and what of it belongs to the backbone's description."""
    first, described = clip_encoder(folder, "", "CLIPTextModel")
    if folder.pipeline == "StableDiffusionPipeline":
        return TextConditioner(first), {"encoders": [described]}
    second, also = clip_encoder(folder, "_2", "CLIPTextModelWithProjection")
    zeros = bool(folder.index.get("force_zeros_for_empty_prompt", True))
    height, width = (side * latents.factor for side in sample_size(folder))
    conditioner = SdxlConditioner(first, second, (height, width), zeros_for_empty=zeros)
    return conditioner, {"encoders": [described, also], "zeros_for_empty": zeros}


def fast_type(device: str) -> torch.dtype | None:
    """The best `autocast` for a device: bfloat16 if it multiplies that faster than float32, else None."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else None


def plain_attention(model: nn.Module) -> None:
    """Attention as two matrix products and a softmax, for small images on a CPU.

    In bfloat16, the backward pass of torch's fused kernel would take a quarter of a whole training step there. Other
    processors compute something else than plain attention and stay.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

    for module in model.modules():
        if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
            module.set_processor(AttnProcessor())


@torch.no_grad()
def try_out(denoiser: Denoiser, where: str) -> None:
    """Runs the network at t = T − 1 and t = T / 2, and decodes once: a configuration cannot tell whether that works.

    Raises BackboneRefused where a result fails, has the wrong shape or is not finite.
    """
    last = denoiser.schedule.num_timesteps - 1
    for t in (last, (last + 1) // 2):
        try:
            noise = Noise(0, Domain.PROBE).normal((1, *denoiser.sample_shape)).to(denoiser.device)
            eps = denoiser.epsilon(noise, torch.tensor([t], device=denoiser.device))
        except Exception as error:
            raise BackboneRefused(f"{where}: the network does not run on its own sample_size ({_reason(error)}); "
                                  "save a pipeline that diffusers itself runs") from error  # fmt: skip
        _check(eps, tuple(noise.shape), f"{where}: the prediction at t = {t}")
    try:
        picture = denoiser.decode(noise)
    except Exception as error:
        raise BackboneRefused(f"{where}: the vae does not decode its latents ({_reason(error)})") from error
    _check(picture, (1, *denoiser.image_shape), f"{where}: the decoded picture")


def _check(result: torch.Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(result.shape) != shape:
        raise BackboneRefused(f"{what} has the shape {list(result.shape)} where {list(shape)} is right")
    if not bool(result.isfinite().all()):
        raise BackboneRefused(f"{what} is not finite; load the weights in float32 or bfloat16, or copy them again")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
