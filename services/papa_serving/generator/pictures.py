"""From finished samples to what is kept and what is shown, for pixel and for latent backbones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from papa.denoiser import Denoiser
from papa_serving.generator.images import png, to_pixels


class Pictures:
    """Decodes; may be called from any thread, beside the engine's."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser

    @torch.inference_mode()
    def encoded(self, samples: Tensor) -> tuple[NDArray[np.generic], list[bytes]]:
        """What is kept (pixels as uint8, latents as float16) and the images. Shape: [n, *sample_shape]."""
        pixels = to_pixels(self._denoiser.decode(samples).cpu())
        kept = pixels if self._denoiser.sample_dtype == torch.uint8 else samples.half().numpy()
        return kept, [png(image) for image in pixels]
