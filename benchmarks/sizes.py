"""Memory and adapter sizes of real backbones, from their configurations alone: networks are made without storage.

python -m benchmarks.sizes
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from papa.config import ATTENTION_LORA
from papa.lora import SlotLora

SLOTS = 64
RANKS = (4, 8, 16)

_SD = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
# What the published unet/config.json and transformer/config.json of each say.
CONFIGS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]] = {
    "Stable Diffusion 1.5": (UNet2DConditionModel, {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8}),
    "Stable Diffusion 2.1": (
        UNet2DConditionModel,
        {
            **_SD,
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    "Stable Diffusion XL": (
        UNet2DConditionModel,
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "DiT-XL/2 256": (
        DiTTransformer2DModel,
        {
            "sample_size": 32,
            "num_layers": 28,
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "in_channels": 4,
            "out_channels": 8,
            "num_embeds_ada_norm": 1000,
            "attention_bias": True,
        },
    ),
}

_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
# What their text_encoder/config.json and text_encoder_2/config.json say; the second one's pooled output is projected.
TEXT_ENCODERS: Mapping[str, tuple[tuple[type[nn.Module], Mapping[str, Any]], ...]] = {
    "Stable Diffusion 1.5": ((CLIPTextModel, _CLIP_L),),
    "Stable Diffusion 2.1": ((CLIPTextModel, _CLIP_H),),
    "Stable Diffusion XL": (
        (CLIPTextModel, _CLIP_L),
        (CLIPTextModelWithProjection, {**_CLIP_G, "projection_dim": 1280}),
    ),
    "DiT-XL/2 256": (),
}


@dataclass(frozen=True)
class Size:
    """The sizes of one backbone and its adapters. `bytes` are those of half-precision weights, `pipeline_bytes` include
    the VAE and the text encoders. A slot holds B alone, in half precision; a revision holds B in single precision and
    the shared A, so that peft can read it."""

    backbone: str
    parameters: int
    bytes: int
    pipeline_bytes: int
    rank: int
    layers: int
    adapter_parameters: int
    slot_bytes: int
    revision_bytes: int
    slots_bytes: int


def sizes(name: str, rank: int) -> Size:
    """Computes the sizes of one backbone with adapters of one rank."""
    kind, config = CONFIGS[name]
    with torch.device("meta"):
        model = kind(**config)
        others = [AutoencoderKL(**_VAE), *(made(CLIPTextConfig(**given)) for made, given in TEXT_ENCODERS[name])]
    layout = SlotLora(model, replace(ATTENTION_LORA, rank=rank, alpha=float(rank))).layout
    parameters, all_parameters = _count([model]), _count([model, *others])
    adapter, shared = layout.size, sum(math.prod(layer.a_shape) for layer in layout.layers)
    return Size(
        name, parameters, 2 * parameters, 2 * all_parameters, rank, len(layout.layers), adapter, 2 * adapter,
        4 * (adapter + shared), 2 * adapter * (SLOTS + 1),
    )  # fmt: skip


def _count(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def table(rows: list[Size]) -> str:
    """Markdown."""
    lines = [
        "| backbone | parameters | fp16 weights | with VAE and text | rank | adapter | in a slot (fp16) | in a "
        f"revision | {SLOTS} slots |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.backbone} | {row.parameters / 1e6:,.1f} M | {row.bytes / 1e9:.2f} GB "
        f"| {row.pipeline_bytes / 1e9:.2f} GB | {row.rank} "
        f"| {row.adapter_parameters / 1e6:.2f} M | {row.slot_bytes / 1e6:.2f} MB | {row.revision_bytes / 1e6:.2f} MB "
        f"| {row.slots_bytes / 1e6:,.0f} MB |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows = [sizes(name, rank) for name in CONFIGS for rank in RANKS]
    print(json.dumps([asdict(row) for row in rows], indent=1) if as_json else table(rows))


if __name__ == "__main__":
    main()
