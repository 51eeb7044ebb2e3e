"""Loads a denoiser from a diffusers folder, by the class of its pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from papa.backbone.vocabulary_file import read_vocabulary
from papa.config import ATTENTION_LORA, DEFAULT_LORA, update_config
from papa.denoiser.conditioners import ClassConditioner, ClipEncoder, Conditioner, SdxlConditioner, TextConditioner
from papa.denoiser.identity import clip_options, network_options, tokenizer_content
from papa.denoiser.latents import LatentSpace
from papa.denoiser.trial import try_out
from papa.denoiser.wrapper import Denoiser, Prediction, class_conditional, text_conditional, unconditional
from papa.lora import LoraConfig
from papa.pipeline_folder import (
    BackboneRefused,
    PipelineFolder,
    inspect_folder,
    prediction_type,
    resolve_backbone,
    sample_size,
)
from papa.pool import read_pool
from papa.schedule import NoiseSchedule

PADDING = 0.9
"""Share of a text encoder's embeddings that its tokenizer must know, and of its longer tokens that merges must make."""


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
    denoiser = _LOADERS[folder.network, "vae" in folder.parts](folder, lora)
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

    schedule, prediction = _process(folder, pixels=True)
    unet = load_component(folder, "unet", UNet2DModel)
    shape = (int(unet.config.in_channels), *sample_size(folder))
    return Denoiser(
        unet,
        schedule,
        shape,
        prediction,
        lora or _pixel_lora(unet),
        network=unconditional,
        unrated=read_pool(folder.path, shape),
        description={"pixels": network_options(unet)},
    )


def _text_unet(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import UNet2DConditionModel

    schedule, prediction = _process(folder, pixels=False)
    latents = _latents(folder)
    conditioner, description = _text(folder, latents)
    unet = load_component(folder, "unet", UNet2DConditionModel)
    return Denoiser(
        unet,
        schedule,
        (latents.channels, *sample_size(folder)),
        prediction,
        lora or ATTENTION_LORA,
        network=text_conditional,
        conditioner=conditioner,
        latents=latents,
        description={"text": network_options(unet), "vae": network_options(latents.vae), **description},
        vocabulary=read_vocabulary(folder.path),
    )


def _transformer(folder: PipelineFolder, lora: LoraConfig | None) -> Denoiser:
    from diffusers import DiTTransformer2DModel

    schedule, prediction = _process(folder, pixels=False)
    model = load_component(folder, "transformer", DiTTransformer2DModel)
    latents = _latents(folder)
    names = folder.index.get("id2label") or {}
    return Denoiser(
        model,
        schedule,
        (latents.channels, *sample_size(folder)),
        prediction,
        lora or ATTENTION_LORA,
        network=class_conditional,
        conditioner=ClassConditioner(names, model.config.num_embeds_ada_norm),
        latents=latents,
        description={"classes": network_options(model), "vae": network_options(latents.vae), "names": names},
    )


_LOADERS: Mapping[tuple[str, bool], Callable[[PipelineFolder, LoraConfig | None], Denoiser]] = {
    ("unet", False): _pixel_unet,
    ("unet", True): _text_unet,
    ("transformer", True): _transformer,
}


def load_component(folder: PipelineFolder, part: str, kind: Any) -> Any:
    """A network of the pipeline in float32, with every tensor from the files. Raises BackboneRefused."""
    place, weights = folder.place(part), folder.weights(part)
    library = kind.__module__.partition(".")[0]
    options: dict[str, Any] = {
        "variant": weights.variant,
        "use_safetensors": weights.safetensors,
        "output_loading_info": True,
    }
    options["torch_dtype" if library == "diffusers" else "dtype"] = torch.float32
    try:
        # Of .bin files both libraries read tensors alone (weights_only): no code in them is run.
        model, info = kind.from_pretrained(place, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackboneRefused(f"{place}: the {part} cannot be loaded; copy it again ({reason})") from error
    _check_tensors(place, model, info)
    return model


def _check_tensors(place: object, model: nn.Module, info: Mapping[str, Any]) -> None:
    """Raises BackboneRefused where the files and the network do not hold the same tensors."""
    buffers = {name for name, _ in model.named_buffers()}
    missing = sorted(set(info["missing_keys"]))
    # Older versions saved buffers that are worked out today.
    unknown = sorted(set(info["unexpected_keys"]) - buffers)
    if not missing and not unknown:
        return
    found = [f"lack {len(missing)} tensors, {missing[0]} first"] if missing else []
    found += [f"hold {len(unknown)} that it does not know, {unknown[0]} first"] if unknown else []
    adapted = any("lora" in name or "base_layer" in name for name in (*missing, *unknown))
    remedy = "merge the adapter and save again" if adapted else "copy them again, or their config.json"
    raise BackboneRefused(f"{place}: the weights do not fit the network: they {' and '.join(found)}; {remedy}")


def _process(folder: PipelineFolder, pixels: bool) -> tuple[NoiseSchedule, Prediction]:
    config, where = folder.config("scheduler"), folder.place("scheduler") / "scheduler_config.json"
    prediction = cast("Prediction", prediction_type(config, where))
    try:
        schedule = NoiseSchedule.from_diffusers(config)
    except Exception as error:
        raise BackboneRefused(f"{where} describes no noise schedule ({' '.join(str(error).split())})") from error
    adapt_from = update_config(pixels).adapt_from
    if schedule.num_timesteps <= adapt_from:
        raise BackboneRefused(
            f"{where}: {schedule.num_timesteps} timesteps, but adapters work from t = {adapt_from} on; "
            "a backbone with more of them is wanted (1000 are usual)"
        )
    if prediction == "epsilon" and schedule.zero_terminal_snr:
        raise BackboneRefused(
            f"{where}: epsilon says nothing of x0 where the signal is zero (rescale_betas_zero_snr); "
            "v_prediction or sample does, or a schedule that is not rescaled"
        )
    return schedule, prediction


def _pixel_lora(unet: nn.Module) -> LoraConfig:
    """DEFAULT_LORA, less what a U-Net without attention lacks."""
    names = [name for name, _ in unet.named_modules()]
    present = [target for target in DEFAULT_LORA.targets if any(name.endswith("." + target) for name in names)]
    return LoraConfig(targets=tuple(present))


def _text(folder: PipelineFolder, latents: LatentSpace) -> tuple[Conditioner, dict[str, Any]]:
    """The conditioner of a Stable Diffusion class, and what of it belongs to the backbone's description."""
    first, described = _clip(folder, "", "CLIPTextModel")
    if folder.pipeline == "StableDiffusionPipeline":
        return TextConditioner(first), {"encoders": [described]}
    second, also = _clip(folder, "_2", "CLIPTextModelWithProjection")
    zeros = bool(folder.index.get("force_zeros_for_empty_prompt", True))
    height, width = (side * latents.factor for side in sample_size(folder))
    conditioner = SdxlConditioner(first, second, (height, width), zeros_for_empty=zeros)
    return conditioner, {"encoders": [described, also], "zeros_for_empty": zeros}


def _clip(folder: PipelineFolder, suffix: str, kind: str) -> tuple[ClipEncoder, dict[str, Any]]:
    import transformers

    model = load_component(folder, f"text_encoder{suffix}", getattr(transformers, kind))
    place = folder.place(f"tokenizer{suffix}")
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(place)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackboneRefused(f"{place}: the tokenizer cannot be loaded; copy it again ({reason})") from error
    known, embeddings = len(tokenizer), int(model.config.vocab_size)
    if not PADDING * embeddings <= known <= embeddings:
        raise BackboneRefused(f"{place}: a vocabulary of {known} tokens where text_encoder{suffix} has {embeddings}; "
                              "copy the tokenizer that the text encoder was trained with")  # fmt: skip
    _check_merges(tokenizer, place)
    length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
    encoder = ClipEncoder(tokenizer, model.requires_grad_(False).eval(), length)
    return encoder, clip_options(model.config) | tokenizer_content(tokenizer, length)


def _check_merges(tokenizer: Any, place: object) -> None:
    """Raises BackboneRefused where words would be spelt letter by letter: without merges no longer token is made."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    longer = [token for token in model["vocab"] if len(token.removesuffix("</w>")) > 1]
    wanted = len(set(longer) - set(tokenizer.all_special_tokens))
    if len(model["merges"]) < PADDING * wanted:
        raise BackboneRefused(f"{place}: {len(model['merges'])} merges where the vocabulary needs {wanted}; "
                              "copy the whole tokenizer of the text encoder")  # fmt: skip


def _latents(folder: PipelineFolder) -> LatentSpace:
    from diffusers import AutoencoderKL

    return LatentSpace(load_component(folder, "vae", AutoencoderKL))


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
