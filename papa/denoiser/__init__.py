"""One signature over every foreign model: x_t, t, conditions → ε, with any row's own adapter.

Nothing outside this package knows whether the backbone predicts ε, v or x0, whether its samples are pixels or latents,
how a prompt becomes tensors, or which library the model comes from.
"""

from papa.denoiser.conditioning import Conditions, PromptRefused
from papa.denoiser.latents import NotFiniteError
from papa.denoiser.loading import fast_type, load_denoiser, plain_attention
from papa.denoiser.wrapper import Denoiser, Prediction
from papa.pipeline_folder import SHIPPED, BackboneRefused, resolve_backbone, shipped_names

__all__ = [
    "SHIPPED",
    "BackboneRefused",
    "Conditions",
    "Denoiser",
    "NotFiniteError",
    "Prediction",
    "PromptRefused",
    "fast_type",
    "load_denoiser",
    "plain_attention",
    "resolve_backbone",
    "shipped_names",
]
