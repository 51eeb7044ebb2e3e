"""A loaded backbone put to the test: what its configuration cannot tell is found here and not by a user's request."""

from __future__ import annotations

import torch

from papa.denoiser.wrapper import Denoiser
from papa.noise import Domain, Noise
from papa.pipeline_folder import BackboneRefused


@torch.no_grad()
def try_out(denoiser: Denoiser, where: str) -> None:
    """One forward pass at t = T − 1 and t = T / 2, and one decoding. Raises BackboneRefused where they fail, have
    another shape than they should or are not finite."""
    last = denoiser.schedule.num_timesteps - 1
    for t in (last, (last + 1) // 2):
        try:
            noise = Noise(0, Domain.PROBE).normal((1, *denoiser.sample_shape)).to(denoiser.device)
            eps = denoiser.epsilon(noise, torch.tensor([t], device=denoiser.device))
        except Exception as error:
            raise BackboneRefused(f"{where}: the network does not run on its own sample_size ({_reason(error)}); "
                                  "save a pipeline that diffusers itself runs") from error  # fmt: skip
        _check(eps, tuple(noise.shape), f"{where}: the prediction at t = {t}")
    try:
        picture = denoiser.decode(noise)
    except Exception as error:
        raise BackboneRefused(f"{where}: the vae does not decode its latents ({_reason(error)})") from error
    _check(picture, (1, *denoiser.image_shape), f"{where}: the decoded picture")


def _check(result: torch.Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(result.shape) != shape:
        raise BackboneRefused(f"{what} has the shape {list(result.shape)} where {list(shape)} is right")
    if not bool(result.isfinite().all()):
        raise BackboneRefused(f"{what} is not finite; load the weights in float32 or bfloat16, or copy them again")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
