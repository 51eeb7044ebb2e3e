"""What makes a foreign model fast on the device at hand."""

from __future__ import annotations

import torch
from torch import nn


def fast_type(device: str) -> torch.dtype | None:
    """bfloat16 where the device multiplies it faster than float32, else None: what `autocast` is best set to."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else None


def plain_attention(model: nn.Module) -> None:
    """Attention as two matrix products and a softmax, for small images on a CPU.

    torch's fused kernel has a backward pass in bfloat16 there that takes a quarter of a whole training step.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
