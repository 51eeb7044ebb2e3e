"""The hash that identifies the backbone of an adapter."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from papa.pipeline_folder import HASH_VERSION
from papa.schedule import NoiseSchedule

_LEFT_OUT = {"dropout", "attention_dropout", "force_upcast", "act_dropout"}
"""Options of a network that do not change what it computes."""
_CLIP_OPTIONS = (
    "eos_token_id", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "projection_dim", "use_attention_mask", "vocab_size",
)  # fmt: skip


_BOOKKEEPING = {
    "_name_or_path", "architectures", "attention_dropout", "classifier_dropout", "dropout_rate", "dtype", "torch_dtype",
    "transformers_version", "use_cache",
}  # fmt: skip
"""Entries of a transformers configuration that do not change what a text encoder computes."""


def backbone_hash(weights: str, description: Mapping[str, Any]) -> str:
    """sha256 over `weights_hash` and everything else that the picture depends on, after HASH_VERSION."""
    text = json.dumps([weights, description], sort_keys=True, separators=(",", ":"))
    return HASH_VERSION + hashlib.sha256(text.encode()).hexdigest()


def weights_hash(
    model: nn.Module, schedule: NoiseSchedule, prediction: str, companions: Iterable[nn.Module] = ()
) -> str:
    """sha256 over every tensor (name, shape, half-precision bytes), the noise schedule and the kind of prediction.

    `companions` are the networks that define the meaning of the model's inputs and outputs: text encoders, then VAE.
    """
    digest = hashlib.sha256(prediction.encode())
    digest.update(schedule.identity())
    for module in (model, *companions):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def network_options(model: Any) -> dict[str, Any]:
    """The options of a diffusers network that differ from the defaults of its class. So a folder that spells the
    defaults out has the same hash, and an option that a later version adds changes nothing."""
    parameters = inspect.signature(type(model).__init__).parameters
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in model.config.items()
        if name in parameters and name not in _LEFT_OUT and _plain(value) != _plain(parameters[name].default)
    }


def clip_options(config: Any) -> dict[str, Any]:
    """The options of a CLIP text encoder (transformers' configuration) on which its output depends."""
    return {name: getattr(config, name, None) for name in _CLIP_OPTIONS}


def text_options(config: Any) -> dict[str, Any]:
    """The options of a T5, Gemma or Qwen encoder (transformers' configuration) that are not its class's defaults."""
    return {name: value for name, value in config.to_diff_dict().items() if name not in _BOOKKEEPING}


def tokenizer_content(tokenizer: Any, length: int) -> dict[str, Any]:
    """The parts of a tokenizer that decide the tokens of a prompt: vocabulary, merges, special tokens and length."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
    merges = [each if isinstance(each, str) else " ".join(each) for each in model.get("merges") or []]
    whole: list[Any] = [sorted(tokenizer.get_vocab().items()), merges, special, length]
    # A unigram tokenizer chooses by its pieces' scores, a chat model by how a message is put.
    whole += [model["vocab"]] if model["type"] == "Unigram" else []
    whole += [tokenizer.chat_template] if tokenizer.chat_template else []
    content = json.dumps(whole)
    return {"tokenizer": hashlib.sha256(content.encode()).hexdigest()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
