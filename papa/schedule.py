"""The forward diffusion process: ᾱ_t, the noising of x0, and the loss weights w_t.

Symbols: T = number of timesteps, β_t = variance of step t, α_t = 1 − β_t, ᾱ_t = Π_{s≤t} α_s (`alphas_cumprod`).
Timesteps count from 0 to T−1, as in diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TERMINAL = 2.0**-48
"""What ᾱ_{T−1} = 0 is replaced by (zero terminal SNR, Lin et al., arXiv 2305.08891): small enough that x_{T−1} is noise
in every floating-point type, large enough that x0 follows from ε in double precision."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete variance-preserving schedule.

    Semantics: q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I).
    Shape: `alphas_cumprod` is [T], float64, strictly decreasing within (0, 1].
    """

    alphas_cumprod: Tensor

    @property
    def num_timesteps(self) -> int:
        """T."""
        return int(self.alphas_cumprod.shape[0])

    @classmethod
    def linear(cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
        """β_t linear from `beta_start` to `beta_end` (Ho et al., arXiv 2006.11239, section 4)."""
        betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
        return cls(torch.cumprod(1 - betas, dim=0))

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule that a diffusers `scheduler_config.json` describes, with any `beta_schedule` of diffusers.

        ᾱ_{T−1} = 0 becomes TERMINAL. Raises ValueError for a table that is no noise schedule.
        """
        from diffusers import DDPMScheduler

        # The prediction is read elsewhere; what this class does not know must not stop it here.
        known = {name: value for name, value in config.items() if name not in ("prediction_type", "_class_name")}
        table = DDPMScheduler.from_config(known).alphas_cumprod.to(torch.float64)
        if bool(table[-1] == 0):
            table[-1] = TERMINAL
        falling = bool((table[1:] <= table[:-1]).all())
        if not falling or not bool(((table > 0) & (table <= 1)).all()):
            raise ValueError("its betas are not between 0 and 1")
        return cls(table)

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether x_{T−1} is pure noise."""
        return bool(self.alphas_cumprod[-1] <= TERMINAL)

    def alpha_bar(self, t: Tensor, like: Tensor) -> Tensor:
        """ᾱ_t per row, shaped to broadcast over `like`; t [n] int64, t = −1 means ᾱ = 1 (clean data)."""
        table = self.alphas_cumprod.to(like.device)
        value = torch.where(t >= 0, table[t.clamp(min=0)], torch.ones((), dtype=torch.float64, device=like.device))
        return value.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))

    def check_adapt_from(self, adapt_from: int) -> None:
        """Raises ValueError for a K outside [0, T): no timestep would be left to adapt."""
        if not 0 <= adapt_from < self.num_timesteps:
            raise ValueError(f"adapt_from is {adapt_from}; with {self.num_timesteps} timesteps it must be 0 to "
                             f"{self.num_timesteps - 1}")  # fmt: skip

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t x0 + √(1 − ᾱ_t) ε. Shape: x0, noise [n, ...]; t [n] int64."""
        alpha_bar = self.alpha_bar(t, x0)
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def loss_weights(self) -> Tensor:
        """w_t = (1 − α_t) / (α_t (1 − ᾱ_{t−1})) for all t, shape [T], float64.

        The weight of ‖ε − ε_θ‖² in the variational bound with σ_t² = β̃_t, up to the constant 1/2 (arXiv 2006.11239,
        eq. 12). At t = 0 the posterior variance β̃_0 is zero and the formula divides by zero; there the bound's decoder
        term with σ_0² = β_0 gives w_0 = (1 − α_0) / (α_0 (1 − ᾱ_0)) = 1 / α_0, which is what is returned.
        """
        alpha_bar = self.alphas_cumprod
        alpha = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
        one_minus_previous = torch.cat([1 - alpha_bar[:1], 1 - alpha_bar[:-1]])
        weights = (1 - alpha) / (alpha * one_minus_previous)
        if self.zero_terminal_snr:
            # ε is known exactly there, so that the error which this weight multiplies is zero.
            weights[-1] = weights[-2]
        return weights
