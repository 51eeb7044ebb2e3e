"""The configurations of published pipelines, as far as their sizes depend on them.

Each is what its repository on the hub says in `model_index.json` and in the components' `config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papa.pipeline_folder import INDEX_FILE, PipelineFolder

_SD = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_VAE_16 = {**_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}

CONFIGURATIONS: Mapping[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "Stable Diffusion 1.5": (
        "StableDiffusionPipeline",
        {
            "unet": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
            "vae": _VAE,
            "text_encoder": _CLIP_L,
        },
    ),
    "Stable Diffusion 2.1": (
        "StableDiffusionPipeline",
        {
            "unet": {
                **_SD,
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": [5, 10, 20, 20],
                "use_linear_projection": True,
            },
            "vae": _VAE,
            "text_encoder": _CLIP_H,
        },
    ),
    "Stable Diffusion XL": (
        "StableDiffusionXLPipeline",
        {
            "unet": {
                "sample_size": 128,
                "block_out_channels": [320, 640, 1280],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "layers_per_block": 2,
                "transformer_layers_per_block": [1, 2, 10],
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            "vae": _VAE,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
        },
    ),
    "Stable Diffusion 3.5 medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": {
                "sample_size": 128,
                "patch_size": 2,
                "in_channels": 16,
                "out_channels": 16,
                "num_layers": 24,
                "attention_head_dim": 64,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 384,
                "dual_attention_layers": list(range(13)),
                "qk_norm": "rms_norm",
            },
            "vae": _VAE_16,
            "text_encoder": {**_CLIP_L, "projection_dim": 768},
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _T5_XXL,
        },
    ),
    "FLUX.1-dev": (
        "FluxPipeline",
        {
            "transformer": {
                "patch_size": 1,
                "in_channels": 64,
                "num_layers": 19,
                "num_single_layers": 38,
                "attention_head_dim": 128,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "pooled_projection_dim": 768,
                "guidance_embeds": True,
            },
            "vae": _VAE_16,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _T5_XXL,
        },
    ),
    "DiT-XL/2 256": (
        "DiTPipeline",
        {
            "transformer": {
                "sample_size": 32,
                "num_layers": 28,
                "num_attention_heads": 16,
                "attention_head_dim": 72,
                "in_channels": 4,
                "out_channels": 8,
                "num_embeds_ada_norm": 1000,
                "attention_bias": True,
            },
            "vae": _VAE,
        },
    ),
}
"""By name: the class of the pipeline, and the configuration of each network."""


def write(name: str, folder: Path) -> PipelineFolder:
    """Lays a pipeline's configurations out as a repository has them, without tokenizers and weights."""
    pipeline, networks = CONFIGURATIONS[name]
    index = {"_class_name": pipeline, **{part: ["", ""] for part in networks}}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    for part, config in networks.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    return PipelineFolder(folder, pipeline, index)
