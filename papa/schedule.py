"""The forward diffusion process x_t = α_t x0 + σ_t ε, in its two usual cases, and the loss weights w_t.

| | variance preserving | rectified flow |
|---|---|---|
| α_t, σ_t | √ᾱ_t, √(1 − ᾱ_t), from a table | 1 − σ, σ with σ = (t + 1) / T |
| t | whole numbers, 0 to T − 1 | real numbers, −1 to T − 1 |
| papers | Ho et al., arXiv 2006.11239 | Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747 |

t = CLEAN = −1 is the sample itself in both: α = 1, σ = 0. λ_t = log(α_t² / σ_t²) is the log signal-to-noise ratio. Both
cases are the same process on another clock, so the samplers, the loss weights and K of EPAPA are written in α, σ
and λ. `alpha` and `sigma` replace √ᾱ and √(1 − ᾱ); `signal` is α² (ᾱ where variance is preserved).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

CLEAN = -1
"""The timestep at which nothing is left to denoise."""

TERMINAL = 2.0**-48
"""Replaces α² = 0 at the end of rectified flow and of zero terminal SNR (Lin et al., arXiv 2305.08891).

It is small enough that x_{T−1} is noise in every floating-point type, and large enough that x0 follows from ε in double
precision."""


class NoiseSchedule(ABC):
    """A forward process.

    Every method that takes t [n] and `like` [n, ...] returns one value per row, in the type of `like` and shaped to
    broadcast over it.
    """

    @property
    @abstractmethod
    def num_timesteps(self) -> int:
        """T."""

    @property
    @abstractmethod
    def zero_terminal_snr(self) -> bool:
        """Whether x_{T−1} is pure noise."""

    @abstractmethod
    def alpha(self, t: Tensor, like: Tensor) -> Tensor:
        """α_t."""

    @abstractmethod
    def variance(self, t: Tensor, like: Tensor) -> Tensor:
        """σ_t²."""

    @abstractmethod
    def half_log_snr(self, t: Tensor, like: Tensor) -> Tensor:
        """λ_t / 2 = log α_t − log σ_t; infinite at CLEAN."""

    @abstractmethod
    def log_snr(self) -> Tensor:
        """λ_t for t = 0 to T − 1. Shape: [T], float64, falling."""

    @abstractmethod
    def kept(self, t: Tensor, t_next: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """q(x_t | x_t') = N(√kept x_t', added I) for t' = `t_next` < t: kept = α_t² / α_t'², and added."""

    @abstractmethod
    def loss_weights(self) -> Tensor:
        """w_t for t = 0 to T − 1, shape [T], float64: the weight of ‖ε − ε_θ‖² in the variational bound, up to 1/2.

        w_t = α_{t−1}² σ_t² / (α_t² σ_{t−1}²) − 1 = exp(λ_{t−1} − λ_t) − 1 (Kingma et al., arXiv 2107.00630, eq. 14).
        """

    @abstractmethod
    def level(self, timestep: int) -> int:
        """The timestep of this schedule whose noise level equals that of `timestep` of a DDPM."""

    @abstractmethod
    def plan(self, steps: int) -> Tensor:
        """The timesteps that a sampler of `steps` steps visits, descending. Shape: [min(steps, T)] float64."""

    @abstractmethod
    def told(self, t: Tensor) -> Tensor:
        """The time that a diffusers network receives for timestep t."""

    @abstractmethod
    def identity(self) -> bytes:
        """The bytes of the process that enter the hash of a backbone's weights."""

    @staticmethod
    def linear(num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> VariancePreserving:
        """β_t linear from `beta_start` to `beta_end` (Ho et al., arXiv 2006.11239, section 4)."""
        betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
        return VariancePreserving(torch.cumprod(1 - betas, dim=0))

    @staticmethod
    def from_diffusers(config: Mapping[str, Any]) -> VariancePreserving:
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
        return VariancePreserving(table)

    def signal(self, t: Tensor, like: Tensor) -> Tensor:
        """α_t², the share of x_t that is signal."""
        return self.alpha(t, like).square()

    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        """σ_t."""
        return self.variance(t, like).sqrt()

    def adapted_from(self, adapt_from: int) -> int:
        """The first timestep that an adapter works on. K = `adapt_from` names a noise level by a DDPM's timestep.

        Raises ValueError for a K outside [0, T): no timestep would be left to adapt.
        """
        if not 0 <= adapt_from < self.num_timesteps:
            raise ValueError(f"adapt_from is {adapt_from}; with {self.num_timesteps} timesteps it must be 0 to "
                             f"{self.num_timesteps - 1}")  # fmt: skip
        return self.level(adapt_from)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = α_t x0 + σ_t ε. Shape: x0, noise [n, ...]; t [n]."""
        return self.alpha(t, x0) * x0 + self.sigma(t, x0) * noise


@dataclass(frozen=True, eq=False)
class VariancePreserving(NoiseSchedule):
    """A discrete schedule with α² + σ² = 1.

    Symbols: β_t = variance of step t, α_t = 1 − β_t in the DDPM papers, ᾱ_t = Π_{s≤t} (1 − β_s) = `alphas_cumprod`.
    Shape: `alphas_cumprod` is [T], float64, falling within (0, 1].
    """

    alphas_cumprod: Tensor

    @property
    @override
    def num_timesteps(self) -> int:
        return int(self.alphas_cumprod.shape[0])

    @property
    @override
    def zero_terminal_snr(self) -> bool:
        return bool(self.alphas_cumprod[-1] <= TERMINAL)

    @override
    def signal(self, t: Tensor, like: Tensor) -> Tensor:
        table = self.alphas_cumprod.to(like.device)
        index = t.clamp(min=0).long()
        value = torch.where(t >= 0, table[index], torch.ones((), dtype=torch.float64, device=like.device))
        return value.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))

    @override
    def alpha(self, t: Tensor, like: Tensor) -> Tensor:
        return self.signal(t, like).sqrt()

    @override
    def variance(self, t: Tensor, like: Tensor) -> Tensor:
        return 1 - self.signal(t, like)

    @override
    def half_log_snr(self, t: Tensor, like: Tensor) -> Tensor:
        signal = self.signal(t, like)
        return 0.5 * (signal.log() - torch.log1p(-signal))

    @override
    def log_snr(self) -> Tensor:
        return self.alphas_cumprod.log() - torch.log1p(-self.alphas_cumprod)

    @override
    def kept(self, t: Tensor, t_next: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.signal(t, like) / self.signal(t_next, like)
        return kept, 1 - kept

    @override
    def loss_weights(self) -> Tensor:
        """w_t = (1 − α_t) / (α_t (1 − ᾱ_{t−1})) in the symbols of DDPM (arXiv 2006.11239, eq. 12, σ_t² = β̃_t).

        At t = 0 the posterior variance β̃_0 is zero and the formula divides by zero; there the bound's decoder term with
        σ_0² = β_0 gives w_0 = (1 − α_0) / (α_0 (1 − ᾱ_0)) = 1 / α_0, which is what is returned.
        """
        alpha_bar = self.alphas_cumprod
        alpha = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
        one_minus_previous = torch.cat([1 - alpha_bar[:1], 1 - alpha_bar[:-1]])
        weights = (1 - alpha) / (alpha * one_minus_previous)
        if self.zero_terminal_snr:
            # ε is known exactly there, so that the error which this weight multiplies is zero.
            weights[-1] = weights[-2]
        return weights

    @override
    def level(self, timestep: int) -> int:
        return timestep

    @override
    def plan(self, steps: int) -> Tensor:
        """ "Trailing" spacing, which starts at the noise level that training saw (Lin et al., arXiv 2305.08891)."""
        return timesteps(self.num_timesteps, steps).double()

    @override
    def told(self, t: Tensor) -> Tensor:
        return t

    @override
    def identity(self) -> bytes:
        return self.alphas_cumprod.numpy().tobytes()


def timesteps(num_timesteps: int, steps: int) -> Tensor:
    """`steps` whole timesteps, descending, "trailing" spacing: always from T − 1. Shape: [min(steps, T)] int64."""
    steps = min(steps, num_timesteps)
    descending = torch.arange(num_timesteps, 0, -num_timesteps / steps, dtype=torch.float64)[:steps]
    return (descending.round() - 1).long()


Spacing = Literal["even", "ends", "solver"]
"""The spacing of σ before the shift.

- "even": n/n, …, 2/n, 1/n, which FLUX's pipeline passes to its scheduler.
- "ends": evenly from 1 to the scheduler's least σ, the default of a flow-matching Euler scheduler.
- "solver": as "even", but from 1 − 1/T, as DPM-Solver does.
"""


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """x_σ = (1 − σ) x0 + σ ε; the network predicts v = ε − x0 = dx/dσ.

    The process is the same for every model; the timesteps of samplers differ. σ' = s σ / (1 + (s − 1) σ), s = `shift`,
    moves them towards the noise (Esser et al., arXiv 2403.03206, section 5.3.2); the last σ then becomes `terminal`
    where one is given. `least` is the smallest σ that the spacing "ends" starts from.
    """

    shift: float = 1.0
    spacing: Spacing = "ends"
    least: float = 1e-3
    terminal: float | None = None
    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    """The scaled-linear β of the DDPM whose timestep K names; those of Stable Diffusion."""

    @property
    @override
    def num_timesteps(self) -> int:
        return self.steps

    @property
    @override
    def zero_terminal_snr(self) -> bool:
        return True

    @override
    def alpha(self, t: Tensor, like: Tensor) -> Tensor:
        return self._shaped(1 - self._sigma(t), like)

    @override
    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        return self._shaped(self._sigma(t), like)

    @override
    def variance(self, t: Tensor, like: Tensor) -> Tensor:
        return self.sigma(t, like).square()

    @override
    def half_log_snr(self, t: Tensor, like: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return self._shaped((1 - sigma).log() - sigma.log(), like)

    @override
    def log_snr(self) -> Tensor:
        t = torch.arange(self.steps, dtype=torch.float64)
        return 2 * self.half_log_snr(t, t)

    @override
    def kept(self, t: Tensor, t_next: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = (self.alpha(t, like) / self.alpha(t_next, like)).square()
        return kept, self.variance(t, like) - kept * self.variance(t_next, like)

    @override
    def loss_weights(self) -> Tensor:
        """As for any schedule. At t = 0 the decoder's term gives 1 / α_0², as where variance is preserved."""
        weights = torch.expm1(-self.log_snr().diff(prepend=torch.zeros(1, dtype=torch.float64)))
        weights[0] = (1 - 1 / self.steps) ** -2
        # ε is known exactly at the end, so that the error which this weight multiplies is zero.
        weights[-1] = weights[-2]
        return weights

    @override
    def level(self, timestep: int) -> int:
        """Timestep 0 stays 0: with K = 0 an adapter works at every timestep."""
        if timestep == 0:
            return 0
        betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64).square()
        wanted = VariancePreserving(torch.cumprod(1 - betas, dim=0)).log_snr()[timestep]
        return int((self.log_snr() > wanted).sum())

    @override
    def plan(self, steps: int) -> Tensor:
        steps = min(steps, self.steps)
        if self.spacing == "ends":
            sigma = torch.linspace(1, self.least, steps, dtype=torch.float64)
        else:
            sigma = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
            sigma = sigma * (1 - 1 / self.steps) if self.spacing == "solver" else sigma
        sigma = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        if self.terminal is not None and steps > 1:
            sigma = 1 - (1 - sigma) * ((1 - self.terminal) / (1 - sigma[-1]))
        return self.steps * sigma - 1

    @override
    def told(self, t: Tensor) -> Tensor:
        """T σ = t + 1."""
        return t + 1

    @override
    def identity(self) -> bytes:
        return f"rectified flow {self.steps}".encode()

    def _sigma(self, t: Tensor) -> Tensor:
        return ((t.double() + 1) / self.steps).clamp(max=1 - math.sqrt(TERMINAL))

    def _shaped(self, value: Tensor, like: Tensor) -> Tensor:
        return value.to(like.device, like.dtype).view(-1, *([1] * (like.ndim - 1)))


def rectified_flow(config: Mapping[str, Any], tokens: int, even: bool = False) -> RectifiedFlow:
    """The process that a diffusers `scheduler_config.json` of flow matching describes.

    `tokens` of one picture decide a dynamic shift. `even`: the pipeline gives its scheduler n/n … 1/n, as FLUX's does.
    Raises ValueError for options that move the steps in another way.
    """
    odd = [name for name in _OTHER_STEPS if config.get(name)]
    if odd:
        raise ValueError(f"{', '.join(odd)} not supported; steps may be shifted, and stretched to shift_terminal")
    steps = int(config.get("num_train_timesteps", 1000))
    if config.get("use_flow_sigmas"):
        other = [name for name in ("shift_terminal", "use_dynamic_shifting", "use_lu_lambdas") if config.get(name)]
        if other or config.get("_class_name") == "UniPCMultistepScheduler":
            moved = ", ".join(other) or "the spacing of UniPCMultistepScheduler"
            raise ValueError(
                f"{moved} not supported with use_flow_sigmas; DPMSolverMultistepScheduler with a flow_shift is"
            )
        return RectifiedFlow(float(config.get("flow_shift", 1.0)), "solver", steps=steps)
    dynamic, terminal = bool(config.get("use_dynamic_shifting")), config.get("shift_terminal") or None
    shift, least = float(config.get("shift", 1.0)), 1 / steps
    if dynamic:
        lengths = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
        mu = dynamic_shift(tokens, *lengths, float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15)))
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    else:
        # A static shift is applied to the scheduler's own end as well, and then once more to all steps.
        least = shift * least / (1 + (shift - 1) * least)
    return RectifiedFlow(shift, "even" if even else "ends", least, terminal, steps)


_OTHER_STEPS = (
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


def dynamic_shift(tokens: int, base_tokens: int, most_tokens: int, base_shift: float, max_shift: float) -> float:
    """μ for a picture of that many tokens: the line through (base_tokens, base_shift) and (most_tokens, max_shift).

    The shift is then s = e^μ, or μ itself where the scheduler says "linear".
    """
    slope = (max_shift - base_shift) / (most_tokens - base_tokens)
    return base_shift + slope * (tokens - base_tokens)
