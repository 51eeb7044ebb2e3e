"""Loads the text-to-image transformers: PixArt-α/Σ, SANA, Stable Diffusion 3 and 3.5, FLUX.1, Z-Image."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from papa.backbone.vocabulary_file import read_vocabulary
from papa.denoiser.adapted_layers import default_lora
from papa.denoiser.components import (
    clip_encoder,
    flow_process,
    latent_space,
    load_component,
    noise_process,
    token_encoder,
)
from papa.denoiser.conditioners import ClipEncoder, Conditioner
from papa.denoiser.identity import network_options
from papa.denoiser.latents import LatentSpace
from papa.denoiser.networks import Network, flux, pixart, sana, stable_diffusion_3, z_image
from papa.denoiser.transformer_conditioners import (
    FluxConditioner,
    PixArtConditioner,
    SanaConditioner,
    StableDiffusion3Conditioner,
    ZImageConditioner,
)
from papa.denoiser.wrapper import Denoiser, Prediction
from papa.lora import LoraConfig
from papa.pipeline_folder import PipelineFolder, sample_size
from papa.schedule import NoiseSchedule, RectifiedFlow

# Tokens of a prompt, as in diffusers' pipelines.
FLUX_TOKENS, STABLE_DIFFUSION_3_TOKENS, SANA_TOKENS, Z_IMAGE_TOKENS = 512, 256, 300, 512
PIXART_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
CLIP_TOKENS = 77
MICRO_CONDITIONED = 128
"""The sample_size of the PixArt-α that takes the size of the picture as a condition."""


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


TEXT_TRANSFORMERS: Mapping[str, Callable[[PipelineFolder, LoraConfig | None], Denoiser]] = {
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": _flux,
    "SanaPipeline": _sana,
    "ZImagePipeline": _z_image,
}
"""By the class of the pipeline."""


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
