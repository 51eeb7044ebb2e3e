"""The components of a pipeline folder, loaded and checked: networks, tokenizers, VAE and noise schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from papa.config import update_config
from papa.denoiser.conditioning import ClipEncoder, TokenEncoder
from papa.denoiser.identity import clip_options, text_options, tokenizer_content
from papa.denoiser.latents import LatentSpace
from papa.denoiser.wrapper import Prediction
from papa.pipeline_folder import BackboneRefused, PipelineFolder, prediction_type
from papa.schedule import NoiseSchedule, RectifiedFlow, rectified_flow

PADDING = 0.9
"""Share of a text encoder's embeddings that its tokenizer must know, and of its longer tokens that merges must make."""


def load_component(folder: PipelineFolder, part: str, kind: Any) -> Any:
    """A network of the pipeline in float32, with every tensor from the files. Raises BackboneRefused."""
    path, weights = folder.path_of(part), folder.weights(part)
    library = kind.__module__.partition(".")[0]
    options: dict[str, Any] = {
        "variant": weights.variant,
        "use_safetensors": weights.safetensors,
        "output_loading_info": True,
    }
    options["torch_dtype" if library == "diffusers" else "dtype"] = torch.float32
    try:
        # Of .bin files both libraries read tensors alone (weights_only): no code in them is run.
        model, info = kind.from_pretrained(path, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackboneRefused(f"{path}: the {part} cannot be loaded; copy it again ({reason})") from error
    _check_tensors(path, model, info)
    return model


def _check_tensors(path: object, model: nn.Module, info: Mapping[str, Any]) -> None:
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
    raise BackboneRefused(f"{path}: the weights do not fit the network: they {' and '.join(found)}; {remedy}")


def noise_process(folder: PipelineFolder, pixels: bool) -> tuple[NoiseSchedule, Prediction]:
    """The schedule of a DDPM and what the network predicts. Raises BackboneRefused."""
    config, where = folder.config("scheduler"), folder.path_of("scheduler") / "scheduler_config.json"
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


def flow_process(folder: PipelineFolder, tokens: int, even: bool = False) -> RectifiedFlow:
    """The schedule of rectified flow, for pictures of that many tokens. Raises BackboneRefused."""
    where = folder.path_of("scheduler") / "scheduler_config.json"
    try:
        return rectified_flow(folder.config("scheduler"), tokens, even)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise BackboneRefused(f"{where} cannot be followed ({' '.join(str(error).split())})") from error


def clip_encoder(folder: PipelineFolder, suffix: str, kind: str) -> tuple[ClipEncoder, dict[str, Any]]:
    """A CLIP encoder, and what of it belongs to the backbone's description. Raises BackboneRefused."""
    import transformers

    model = load_component(folder, f"text_encoder{suffix}", getattr(transformers, kind))
    tokenizer = _tokenizer(folder, suffix, transformers.CLIPTokenizer, int(model.config.vocab_size))
    _check_merges(tokenizer, folder.path_of(f"tokenizer{suffix}"))
    length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
    encoder = ClipEncoder(tokenizer, model.requires_grad_(False).eval(), length)
    return encoder, clip_options(model.config) | tokenizer_content(tokenizer, length)


def token_encoder(
    folder: PipelineFolder, suffix: str, kind: str, tokenizer: str, length: int, **how: Any
) -> tuple[TokenEncoder, dict[str, Any]]:
    """A T5, Gemma or Qwen encoder of transformers' classes `kind` and `tokenizer`, and what of it belongs to the
    description; `how` are options of TokenEncoder. Raises BackboneRefused."""
    import transformers

    model = load_component(folder, f"text_encoder{suffix}", getattr(transformers, kind))
    words = _tokenizer(folder, suffix, getattr(transformers, tokenizer), int(model.config.vocab_size))
    words.padding_side = "right"
    encoder = TokenEncoder(words, model.requires_grad_(False).eval(), length, **how)
    return encoder, text_options(model.config) | tokenizer_content(words, length)


def _tokenizer(folder: PipelineFolder, suffix: str, kind: Any, embeddings: int) -> Any:
    path = folder.path_of(f"tokenizer{suffix}")
    try:
        tokenizer = kind.from_pretrained(path)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackboneRefused(f"{path}: the tokenizer cannot be loaded; copy it again ({reason})") from error
    known = len(tokenizer)
    if not PADDING * embeddings <= known <= embeddings:
        raise BackboneRefused(f"{path}: a vocabulary of {known} tokens where text_encoder{suffix} has {embeddings}; "
                              "copy the tokenizer that the text encoder was trained with")  # fmt: skip
    return tokenizer


def _check_merges(tokenizer: Any, path: object) -> None:
    """Raises BackboneRefused where words would be spelt letter by letter: without merges no longer token is made."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    longer = [token for token in model["vocab"] if len(token.removesuffix("</w>")) > 1]
    wanted = len(set(longer) - set(tokenizer.all_special_tokens))
    if len(model["merges"]) < PADDING * wanted:
        raise BackboneRefused(f"{path}: {len(model['merges'])} merges where the vocabulary needs {wanted}; "
                              "copy the whole tokenizer of the text encoder")  # fmt: skip


def latent_space(folder: PipelineFolder) -> LatentSpace:
    """The VAE. Raises BackboneRefused."""
    import diffusers

    kind = "AutoencoderDC" if folder.pipeline == "SanaPipeline" else "AutoencoderKL"
    return LatentSpace(load_component(folder, "vae", getattr(diffusers, kind)))
