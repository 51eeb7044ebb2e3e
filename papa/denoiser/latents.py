"""Converts between pictures and the latents that a latent backbone denoises."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

DECODED_AT_ONCE = 4
"""Number of pictures that a VAE decodes together. Its activations are the largest of the whole pipeline."""


class NotFiniteError(ArithmeticError):
    """Decoded pictures hold values that are not finite."""


class LatentSpace:
    """A frozen AutoencoderKL or AutoencoderDC; latents are z = (VAE's − shift) · scale, so that they have about unit
    variance."""

    def __init__(self, vae: Any) -> None:
        self.vae: Any = vae.requires_grad_(False).eval()
        config = vae.config
        self.channels = int(config.latent_channels)
        blocks = config.get("block_out_channels") or config.encoder_block_out_channels
        self.factor = 2 ** (len(blocks) - 1)
        self.image_channels = int(config.get("out_channels", config.in_channels))
        self.full_precision = bool(getattr(config, "force_upcast", False))
        self._scale = float(config.scaling_factor)
        self._lock = Lock()
        self._shift = float(getattr(config, "shift_factor", None) or 0.0)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Shape: [n, c, h, w] → [n, C, H, W] float32 in [−1, 1].

        A VAE that overflows in half precision is turned to float32, and stays so. May be called from any thread.
        Raises NotFiniteError when the pictures are not finite for all that.
        """
        raw = latents.float() / self._scale + self._shift
        pictures = self._decoded(raw)
        if not bool(pictures.isfinite().all()):
            with self._lock:
                self.full_precision = True
                self.vae.to(dtype=torch.float32)
            pictures = self._decoded(raw)
        if not bool(pictures.isfinite().all()):
            raise NotFiniteError("the VAE's pictures are not finite, in float32 either")
        return pictures.clamp(-1, 1)

    def _decoded(self, raw: Tensor) -> Tensor:
        # The lock: a VAE must not change its type between its layers.
        with self._lock:
            parameter = next(self.vae.parameters())
            parts = raw.to(parameter.device, parameter.dtype).split(DECODED_AT_ONCE)
            return torch.cat([self.vae.decode(part).sample for part in parts]).float()

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """The mode of the posterior, so that one picture always gives the same latents.

        Shape: [n, C, H, W] in [−1, 1] → [n, c, h, w] float32.
        """
        with self._lock:
            parameter = next(self.vae.parameters())
            parts = pictures.to(parameter.device, parameter.dtype).split(DECODED_AT_ONCE)
            modes = torch.cat([_mode(self.vae.encode(part)) for part in parts])
        return (modes.float() - self._shift) * self._scale


def _mode(encoded: Any) -> Tensor:
    """An AutoencoderDC gives latents, an AutoencoderKL their distribution."""
    mode: Tensor = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    return mode
