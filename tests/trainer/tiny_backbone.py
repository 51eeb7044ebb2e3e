"""A backbone of a few thousand parameters, as a standard diffusers folder."""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel

SHAPE = (1, 8, 8)


def write_tiny_backbone(folder: Path) -> Path:
    """Random weights from a fixed seed: enough to compute with, nothing to look at."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SHAPE[1],
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(beta_schedule="linear").save_pretrained(folder / "scheduler")
    return folder
