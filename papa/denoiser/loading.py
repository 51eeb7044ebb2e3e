"""Loads a denoiser from a diffusers folder, by the class of its pipeline: U-Nets and transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from papa.backbone.vocabulary_file import read_vocabulary
from papa.denoiser.components import (
    clip_encoder,
    flow_process,
    latent_space,
    load_component,
    noise_process,
    token_encoder,
)
from papa.denoiser.conditioning import (
    ClassConditioner,
    ClipEncoder,
    Conditioner,
    FluxConditioner,
    PixArtConditioner,
    SanaConditioner,
    SdxlConditioner,
    StableDiffusion3Conditioner,
    TextConditioner,
    ZImageConditioner,
)
from papa.denoiser.identity import network_options
from papa.denoiser.latents import LatentSpace
from papa.denoiser.networks import (
    Network,
    class_conditional,
    default_lora,
    flux,
    pixart,
    sana,
    stable_diffusion_3,
    text_conditional,
    unconditional,
    z_image,
)
from papa.denoiser.wrapper import Denoiser, Prediction
from papa.lora import LoraConfig
from papa.noise import Domain, Noise
from papa.pipeline_folder import BackboneRefused, PipelineFolder, inspect_folder, resolve_backbone, sample_size
from papa.pool import read_pool
from papa.schedule import NoiseSchedule, RectifiedFlow

# Tokens of a prompt, as in diffusers' pipelines.
FLUX_TOKENS, STABLE_DIFFUSION_3_TOKENS, SANA_TOKENS, Z_IMAGE_TOKENS = 512, 256, 300, 512
PIXART_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
CLIP_TOKENS = 77
MICRO_CONDITIONED = 128
"""The sample_size of the PixArt-α that takes the size of the picture as a condition."""


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


def _pixart(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    schedule, prediction = noise_process(folder, pixels=False)
    model, latents = _network(folder), latent_space(folder)
    encoder, described = token_encoder(folder, "", "T5EncoderModel", "T5Tokenizer", PIXART_TOKENS[folder.pipeline])
    height, width = (side * latents.factor for side in sample_size(folder))
    told = (height, width) if model.config.sample_size == MICRO_CONDITIONED else None
    conditioner = PixArtConditioner(encoder, told)
    return _denoiser(
        folder,
        model,
        schedule,
        prediction,
        lora or default_lora(folder.pipeline, model),
        pixart,
        conditioner,
        latents,
        [described],
    )


def _sana(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import SanaPipeline

    model, latents = _network(folder), latent_space(folder)
    encoder, described = token_encoder(folder, "", "Gemma2Model", "GemmaTokenizer", SANA_TOKENS)
    schedule = flow_process(folder, _tokens(folder, model.config.patch_size))
    # The instruction that the pipeline puts before every prompt.
    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    conditioner = SanaConditioner(encoder, "\n".join(lines))
    encoders = [described, {"instruction": lines}]
    return _denoiser(
        folder,
        model,
        schedule,
        "flow_prediction",
        lora or default_lora(folder.pipeline, model),
        sana,
        conditioner,
        latents,
        encoders,
    )


def _stable_diffusion_3(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    model, latents = _network(folder), latent_space(folder)
    found = {
        suffix: clip_encoder(folder, suffix, "CLIPTextModelWithProjection")
        for suffix in ("", "_2")
        if f"text_encoder{suffix}" in folder.parts
    }
    clips: list[ClipEncoder | None] = [found[suffix][0] if suffix in found else None for suffix in ("", "_2")]
    t5 = None
    if "text_encoder_3" in folder.parts:
        t5 = token_encoder(folder, "_3", "T5EncoderModel", "T5Tokenizer", STABLE_DIFFUSION_3_TOKENS, masked=False)
    length = next((clip.length for clip in clips if clip is not None), CLIP_TOKENS)
    conditioner = StableDiffusion3Conditioner(
        clips, t5[0] if t5 else None, _widths(clips, model.config.pooled_projection_dim),
        model.config.joint_attention_dim, length, STABLE_DIFFUSION_3_TOKENS,
    )  # fmt: skip
    encoders = [{"part": suffix} | described for suffix, (_, described) in found.items()]
    encoders += [{"part": "_3"} | t5[1]] if t5 else []
    schedule = flow_process(folder, _tokens(folder, model.config.patch_size))
    lora = lora or default_lora(folder.pipeline, model)
    return _denoiser(
        folder, model, schedule, "flow_prediction", lora, stable_diffusion_3, conditioner, latents, encoders
    )


def _widths(clips: list[ClipEncoder | None], pooled: int) -> list[int]:
    """The width of each CLIP encoder; one that is absent has what the others leave of the pooled embedding."""
    widths = [0 if clip is None else clip.pooled for clip in clips]
    if None in clips:
        widths[clips.index(None)] = pooled - sum(widths)
    return widths


def _flux(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    model, latents = _network(folder), latent_space(folder)
    clip, first = clip_encoder(folder, "", "CLIPTextModel")
    t5, second = token_encoder(folder, "_2", "T5EncoderModel", "T5Tokenizer", FLUX_TOKENS, masked=False)
    schedule = flow_process(folder, _tokens(folder, 2), even=True)
    conditioner = FluxConditioner(clip, t5, bool(model.config.guidance_embeds))
    return _denoiser(
        folder,
        model,
        schedule,
        "flow_prediction",
        lora or default_lora(folder.pipeline, model),
        flux,
        conditioner,
        latents,
        [first, second],
    )


def _z_image(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    model, latents = _network(folder), latent_space(folder)
    encoder, described = token_encoder(folder, "", "Qwen3Model", "Qwen2Tokenizer", Z_IMAGE_TOKENS, layer=-2)
    schedule = flow_process(folder, _tokens(folder, 2), even=True)
    conditioner = ZImageConditioner(encoder)
    return _denoiser(
        folder,
        model,
        schedule,
        "flow_prediction",
        lora or default_lora(folder.pipeline, model),
        z_image,
        conditioner,
        latents,
        [described],
    )


def _network(folder: PipelineFolder) -> Any:
    import diffusers

    return load_component(folder, "transformer", getattr(diffusers, folder.layout.parts["transformer"][0]))


def _tokens(folder: PipelineFolder, patch: int) -> int:
    height, width = sample_size(folder)
    return (height // patch) * (width // patch)


def _denoiser(
    folder: PipelineFolder, model: nn.Module, schedule: NoiseSchedule, prediction: Prediction, lora: LoraConfig,
    network: Network, conditioner: Conditioner, latents: LatentSpace, encoders: list[dict[str, Any]],
) -> Denoiser:  # fmt: skip
    size = sample_size(folder)
    description = {folder.pipeline: network_options(model), "vae": network_options(latents.vae), "encoders": encoders}
    if isinstance(schedule, RectifiedFlow):
        # Where its steps lie is a choice of the pipeline that reaches the picture.
        description["steps"] = asdict(schedule)
    return Denoiser(
        model,
        schedule,
        (latents.channels, *size),
        prediction,
        lora,
        network=network,
        conditioner=conditioner,
        latents=latents,
        description={**description, "size": size},
        vocabulary=read_vocabulary(folder.path),
    )


_LOADERS: Mapping[str, Callable[[PipelineFolder, LoraConfig | None], Denoiser]] = {
    "DDPMPipeline": _pixel_unet,
    "DDIMPipeline": _pixel_unet,
    "PNDMPipeline": _pixel_unet,
    "StableDiffusionPipeline": _text_unet,
    "StableDiffusionXLPipeline": _text_unet,
    "DiTPipeline": _class_transformer,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": _flux,
    "SanaPipeline": _sana,
    "ZImagePipeline": _z_image,
}
"""By the class of the pipeline."""


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
