"""Text-to-image transformers of diffusers' classes, made on the spot and a few thousand parameters large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from papa.backbone.words import word_tokenizer
from tests.papa.pipelines import WORDS, tiny_text
from tests.papa.support import edit

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT_WIDTH = 16
SIZE = 8
"""Height and width of the latents; pictures are twice as large. SANA's pipeline wants multiples of 32 pixels."""
CHAT = "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}"


def vae(channels: int = 4, **more: Any) -> AutoencoderKL:
    torch.manual_seed(3)
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "latent_channels": channels,
        "norm_num_groups": 4,
        "sample_size": 16,
        "scaling_factor": 0.5,
        "shift_factor": 0.1,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    return AutoencoderKL(**settings | more).eval()


def t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in LETTERS)], extra_ids=0)


def t5() -> T5EncoderModel:
    torch.manual_seed(11)
    return T5EncoderModel(
        T5Config(vocab_size=len(t5_tokenizer()), d_model=TEXT_WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).eval()


def stable_diffusion_3(**more: Any) -> StableDiffusion3Pipeline:
    """`more` are components in the place of the usual ones."""
    torch.manual_seed(12)
    transformer = SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=44,
        caption_projection_dim=16,
        pooled_projection_dim=24,
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()
    first, second = (tiny_text(projection=True, seed=seed, width=width) for seed, width in ((4, 12), (6, 16)))
    torch.manual_seed(11)
    config = T5Config(vocab_size=len(t5_tokenizer()), d_model=44, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    parts: dict[str, Any] = {
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae(),
        "text_encoder": first,
        "tokenizer": word_tokenizer(WORDS),
        "text_encoder_2": second,
        "tokenizer_2": word_tokenizer(WORDS),
        "text_encoder_3": T5EncoderModel(config).eval(),
        "tokenizer_3": t5_tokenizer(),
    }
    return StableDiffusion3Pipeline(**parts | more)


def flux(guided: bool = True) -> FluxPipeline:
    torch.manual_seed(13)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    ).eval()
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
        vae=vae(),
        text_encoder=tiny_text(),
        tokenizer=word_tokenizer(WORDS),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
    )


def pixart(alpha: bool = True, size: int = SIZE) -> PixArtAlphaPipeline:
    torch.manual_seed(14)
    conditioned = size == 128
    width = 24 if conditioned else 16  # of which each condition has a third
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=width // 2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=size,
        cross_attention_dim=width,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=conditioned,
    ).eval()
    kind = PixArtAlphaPipeline if alpha else PixArtSigmaPipeline
    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)
    return kind(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=vae(shift_factor=None),
        transformer=transformer,
        scheduler=scheduler,
    )


def gemma_tokenizer() -> GemmaTokenizer:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    return GemmaTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def sana() -> SanaPipeline:
    torch.manual_seed(15)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT_WIDTH,
        sample_size=2 * SIZE,
    ).eval()
    autoencoder = AutoencoderDC(
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.5,
    ).eval()
    tokenizer = gemma_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(config).eval(),
        vae=autoencoder,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def qwen_tokenizer() -> Qwen2Tokenizer:
    special = ["<|endoftext|>", "<|user|>"]
    characters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 323))]
    tokens = [*special, *characters]
    made = Qwen2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    made.chat_template = CHAT
    return made


def z_image() -> ZImagePipeline:
    torch.manual_seed(16)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    ).eval()
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:
            torch.nn.init.normal_(parameter)
    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=Qwen3Model(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def saved(pipeline: Any, folder: Path) -> str:
    """The folder as published. Where a class has no size of its own, latents of SIZE are written beside its options."""
    pipeline.save_pretrained(folder)
    if isinstance(pipeline, FluxPipeline | ZImagePipeline):
        edit(folder / "transformer" / "config.json", sample_size=SIZE)
    return str(folder)
