"""A VAE that overflows in half precision: whole pictures or a typed error, never black ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from papa.denoiser import BackboneRefused, NotFiniteError, load_denoiser
from papa.denoiser.latents import LatentSpace
from tests.papa.pipelines import saved, stable_diffusion, tiny_vae


def overflowing() -> LatentSpace:
    """Its first convolution leaves float16's range; the following normalisation would bring it back."""
    vae = tiny_vae()
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e5)
    return LatentSpace(vae)


def test_pictures_are_those_of_float32() -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = overflowing().decode(latents)
    space = overflowing()
    space.vae.half()
    assert not bool(space.vae.decode(latents.half() * 2).sample.isfinite().all())
    torch.testing.assert_close(space.decode(latents), expected, atol=0.05, rtol=0)
    assert next(space.vae.parameters()).dtype == torch.float32


def test_what_no_precision_helps_is_a_typed_error() -> None:
    space = LatentSpace(tiny_vae())
    with torch.no_grad():
        space.vae.decoder.conv_out.bias.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="not finite"):
        space.decode(torch.zeros(1, 4, 8, 8))


def test_a_backbone_that_decodes_to_nothing_is_not_loaded(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(BackboneRefused, match="the vae does not decode its latents"):
        load_denoiser(saved(pipe, tmp_path))
