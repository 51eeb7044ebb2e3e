"""From a diffusers folder to a denoiser, by the class of its network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from papa.config import ATTENTION_LORA, DEFAULT_LORA
from papa.denoiser.conditioners import ClassConditioner, ClipEncoder, Conditioner, SdxlConditioner, TextConditioner
from papa.denoiser.latents import LatentSpace
from papa.denoiser.locating import resolve_backbone
from papa.denoiser.wrapper import Denoiser, Prediction, class_conditional, text_conditional, unconditional
from papa.lora import LoraConfig
from papa.pool import read_pool
from papa.schedule import NoiseSchedule

SUPPORTED = "UNet2DModel (DDPM), UNet2DConditionModel (Stable Diffusion 1.x, 2.x, XL), DiTTransformer2DModel (DiT)"

Config = Mapping[str, Any]
Loader = Callable[[Path, Config, LoraConfig | None], Denoiser]


def load_denoiser(
    backbone: str,
    lora: LoraConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> Denoiser:
    """Loads a shipped name, a diffusers folder or a hub id.

    `lora` None takes the default for the backbone's class: attention layers, and for small pixel U-Nets convolutions as
    well. `dtype` is the type of the weights, `autocast` that of products and convolutions (see Denoiser).
    `channels_last` stores the weights of convolutions, and so the activations, with the channels of a pixel together.

    Raises FileNotFoundError when none of these is found, ValueError when the pipeline's class is not supported.
    """
    folder = resolve_backbone(backbone)
    part = "transformer" if (folder / "transformer" / "config.json").is_file() else "unet"
    config = _json(folder / part / "config.json")
    kind = config.get("_class_name", "UNet2DModel")
    if kind not in _LOADERS:
        raise ValueError(f"the backbone {backbone} is a {kind}, which is not supported; supported are: {SUPPORTED}")
    denoiser = _LOADERS[kind](folder, config, lora)
    denoiser.autocast = autocast
    if device == "cpu":
        plain_attention(denoiser.model)
    denoiser.to(device, dtype)
    if channels_last:
        for weights in denoiser.model.parameters():
            if weights.ndim == 4:
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return denoiser


def _pixel_unet(folder: Path, config: Config, lora: LoraConfig | None) -> Denoiser:
    from diffusers import UNet2DModel

    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    height, width = _pair(unet.config.sample_size)
    shape = (unet.config.in_channels, height, width)
    pool = read_pool(folder, shape)
    return Denoiser(unet, *_process(folder, shape), lora or DEFAULT_LORA, network=unconditional, unrated=pool)


def _text_unet(folder: Path, config: Config, lora: LoraConfig | None) -> Denoiser:
    from diffusers import UNet2DConditionModel

    latents = _latents(folder)
    _refuse_variants(config, latents)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    height, width = _pair(unet.config.sample_size)
    size = (height * latents.factor, width * latents.factor)
    return Denoiser(
        unet,
        *_process(folder, (latents.channels, height, width)),
        lora or ATTENTION_LORA,
        network=text_conditional,
        conditioner=_text(folder, config, size),
        latents=latents,
    )


def _transformer(folder: Path, config: Config, lora: LoraConfig | None) -> Denoiser:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32)
    latents = _latents(folder)
    height, width = _pair(model.config.sample_size)
    names = _json(folder / "model_index.json").get("id2label") or {}
    return Denoiser(
        model,
        *_process(folder, (latents.channels, height, width)),
        lora or ATTENTION_LORA,
        network=class_conditional,
        conditioner=ClassConditioner(names, model.config.num_embeds_ada_norm),
        latents=latents,
    )


_LOADERS: Mapping[str, Loader] = {
    "UNet2DModel": _pixel_unet,
    "UNet2DConditionModel": _text_unet,
    "DiTTransformer2DModel": _transformer,
}


def _process(folder: Path, shape: tuple[int, int, int]) -> tuple[NoiseSchedule, tuple[int, int, int], Prediction]:
    config = _json(folder / "scheduler" / "scheduler_config.json")
    if "beta_schedule" not in config:
        raise ValueError(f"the scheduler {config.get('_class_name')} has no noise schedule of the DDPM class")
    prediction: Prediction = config.get("prediction_type", "epsilon")
    return NoiseSchedule.from_diffusers(config), shape, prediction


def _text(folder: Path, config: Config, size: tuple[int, int]) -> Conditioner:
    if config.get("addition_embed_type") is None:
        return TextConditioner(_clip(folder, "", "CLIPTextModel"))
    index = _json(folder / "model_index.json")
    if index.get("requires_aesthetics_score"):
        raise ValueError("a refiner needs a picture to refine; use the base pipeline")
    return SdxlConditioner(
        _clip(folder, "", "CLIPTextModel"),
        _clip(folder, "_2", "CLIPTextModelWithProjection"),
        size,
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _clip(folder: Path, suffix: str, kind: str) -> ClipEncoder:
    import transformers

    for part in ("text_encoder", "tokenizer"):
        if not (folder / f"{part}{suffix}").is_dir():
            raise ValueError(f"the pipeline in {folder} has no {part}{suffix}")
    model: nn.Module = getattr(transformers, kind).from_pretrained(
        folder / f"text_encoder{suffix}", dtype=torch.float32
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
    return ClipEncoder(tokenizer, model.requires_grad_(False).eval())


def _latents(folder: Path) -> LatentSpace:
    from diffusers import AutoencoderKL

    if not (folder / "vae" / "config.json").is_file():
        raise ValueError(f"the pipeline in {folder} has no vae")
    config = _json(folder / "vae" / "config.json")
    if config.get("_class_name") != "AutoencoderKL" or config.get("latents_mean") is not None:
        raise ValueError(f"the vae {config.get('_class_name')} is not a plain AutoencoderKL")
    return LatentSpace(AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32))


def _refuse_variants(config: Config, latents: LatentSpace) -> None:
    """Raises ValueError for a U-Net that wants more than x, t and a text."""
    if config["in_channels"] != latents.channels:
        raise ValueError(f"the unet takes {config['in_channels']} channels where its vae has {latents.channels}: "
                         "pipelines that edit a picture are not supported")  # fmt: skip
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise ValueError(f"the unet's addition_embed_type {config['addition_embed_type']!r} is not supported")
    odd = [name for name in ("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim") if config.get(name)]
    if odd:
        raise ValueError(f"the unet's {', '.join(odd)} is not supported")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _json(path: Path) -> Config:
    try:
        config: Config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"the pipeline lacks {path.parent.name}/{path.name}") from error
    return config


def fast_type(device: str) -> torch.dtype | None:
    """The best `autocast` for a device: bfloat16 if it multiplies that faster than float32, else None."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else None


def plain_attention(model: nn.Module) -> None:
    """Attention as two matrix products and a softmax, for small images on a CPU.

    In bfloat16, the backward pass of torch's fused kernel would take a quarter of a whole training step there.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
