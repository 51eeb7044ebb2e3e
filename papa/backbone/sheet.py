"""A sheet of samples as one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.sampler import sample


def sample_sheet(denoiser: Denoiser, count: int = 64, steps: int = 25, seed: int = 0) -> Image.Image:
    """`count` samples from the seeds `seed` onward, sixteen in a row, enlarged twofold."""
    return picture(denoiser.decode(sample(denoiser, list(range(seed, seed + count)), steps=steps)))


def picture(x: Tensor, columns: int = 16, enlarge: int = 2) -> Image.Image:
    """Lays images out in rows. Shape: x [n, C, H, W] in [−1, 1]; the last row is padded with black."""
    pixels = to_pixels(x).permute(0, 2, 3, 1).numpy()
    missing = -len(pixels) % columns
    padded = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in np.split(padded, len(padded) // columns)])
    image = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    return image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
