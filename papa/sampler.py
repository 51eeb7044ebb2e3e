"""The reverse process: one function per published method. Every row of a batch has its own timestep.

| here | paper |
|---|---|
| alpha_bar, alpha_bar_next | ᾱ_t of the row's present and next timestep (next = 1 at the end) |
| eps | ε_θ(x_t, t) |
| x0 | the prediction of x_0 that ε implies |
| lam | λ = log √ᾱ − log √(1−ᾱ), half the log signal-to-noise ratio |

All coefficients have shape [n, 1, 1, 1] and all samples [n, C, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from papa.denoiser import Conditions, Denoiser
from papa.noise import Domain, Noise
from papa.schedule import NoiseSchedule

SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")


def predict_x0(x: Tensor, eps: Tensor, alpha_bar: Tensor, clip: bool) -> Tensor:
    """x0 = (x_t − √(1−ᾱ) ε) / √ᾱ, clipped to [−1, 1] for pixel-space backbones."""
    x0 = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    return x0.clamp(-1, 1) if clip else x0


def ddim_step(x: Tensor, eps: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor, clip: bool) -> Tensor:
    """DDIM with η = 0: √ᾱ' x0 + √(1−ᾱ') ε (Song et al., arXiv 2010.02502, eq. 12)."""
    x0 = predict_x0(x, eps, alpha_bar, clip)
    return alpha_bar_next.sqrt() * x0 + (1 - alpha_bar_next).sqrt() * eps


def ddpm_step(x: Tensor, eps: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor, noise: Tensor, clip: bool) -> Tensor:
    """Ancestral sampling, the posterior q(x_{t'} | x_t, x0) with its own variance (Ho et al., arXiv 2006.11239, eq.
    6-7).

    Semantics: with α = ᾱ / ᾱ', β = 1 − α: mean = (√ᾱ' β x0 + √α (1−ᾱ') x) / (1−ᾱ), variance = β (1−ᾱ') / (1−ᾱ).
    """
    x0 = predict_x0(x, eps, alpha_bar, clip)
    alpha = alpha_bar / alpha_bar_next
    mean = (alpha_bar_next.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - alpha_bar_next) * x) / (1 - alpha_bar)
    variance = (1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)
    return mean + variance.sqrt() * noise


def dpmpp_2m_step(
    x: Tensor,
    x0: Tensor,
    x0_before: Tensor,
    lam_before: Tensor,
    alpha_bar: Tensor,
    alpha_bar_next: Tensor,
    first_order: Tensor,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2); rows where `first_order` holds take its first order.

    Semantics: h = λ' − λ, r = (λ − λ_before) / h, D = x0 + (x0 − x0_before) / (2r),
    x' = √((1−ᾱ')/(1−ᾱ)) x − √ᾱ' (e^{−h} − 1) D. At ᾱ' = 1 this is x' = D.
    """
    lam, lam_next = half_log_snr(alpha_bar), half_log_snr(alpha_bar_next)
    h = lam_next - lam
    slope = (x0 - x0_before) * (0.5 * h / (lam - lam_before))
    direction = torch.where(first_order, x0, x0 + slope)
    ratio = ((1 - alpha_bar_next) / (1 - alpha_bar)).sqrt()
    return ratio * x - alpha_bar_next.sqrt() * torch.expm1(-h) * direction


def half_log_snr(alpha_bar: Tensor) -> Tensor:
    """λ; infinite at ᾱ = 1."""
    return 0.5 * (alpha_bar.log() - torch.log1p(-alpha_bar))


def timesteps(num_timesteps: int, steps: int) -> Tensor:
    """The `steps` timesteps that a sampler visits, descending, "trailing" spacing: always from T − 1.

    Shape: [min(steps, T)] int64. The choice of Lin et al., arXiv 2305.08891, which starts at the noise level that
    training saw.
    """
    steps = min(steps, num_timesteps)
    descending = torch.arange(num_timesteps, 0, -num_timesteps / steps, dtype=torch.float64)[:steps]
    return (descending.round() - 1).long()


@dataclass(eq=False)
class Rows:
    """The sampler state of a batch of rows that need not know one another.

    `sampler` [n] indexes SAMPLERS; `plan` [n, S] holds each row's descending timesteps, −1 behind the last;
    `position` [n] is the index into the plan of the step to come. `x` is x_t; `x0_before` and `t_before` are the
    previous step's, for the multistep method. A row is finished when plan[position] = −1; then x is the sample.
    """

    x: Tensor
    sampler: Tensor
    plan: Tensor
    position: Tensor
    x0_before: Tensor
    t_before: Tensor

    @classmethod
    def start(cls, x: Tensor, sampler: str, steps: int, num_timesteps: int, longest: int | None = None) -> Rows:
        """Fresh rows from x_T = `x` ~ N(0, I). `longest` is the S to allocate (default `steps`)."""
        n = len(x)
        plan = torch.full((n, (longest or steps) + 1), -1, dtype=torch.int64)
        visited = timesteps(num_timesteps, steps)
        plan[:, : len(visited)] = visited
        kind = torch.full((n,), SAMPLERS.index(sampler), dtype=torch.int64)
        zeros = torch.zeros(n, dtype=torch.int64)
        return cls(x, kind, plan.to(x.device), zeros.to(x.device), torch.zeros_like(x), zeros.to(x.device))

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """One batch of all rows, in order; shorter plans are padded."""
        longest = max(part.plan.shape[1] for part in parts)
        plans = [F.pad(part.plan, (0, longest - part.plan.shape[1]), value=-1) for part in parts]
        names = ("x", "sampler", "position", "x0_before", "t_before")
        x, sampler, position, x0_before, t_before = (torch.cat([getattr(p, name) for p in parts]) for name in names)
        return cls(x, sampler, torch.cat(plans), position, x0_before, t_before)

    def select(self, index: Tensor) -> Rows:
        """The rows `index` [m] int64, in that order."""
        parts = (self.x, self.sampler, self.plan, self.position, self.x0_before, self.t_before)
        return Rows(*(part.index_select(0, index) for part in parts))

    @property
    def t(self) -> Tensor:
        """The timestep of the step to come, −1 for finished rows. Shape: [n]."""
        return self.plan.gather(1, self.position[:, None])[:, 0]

    def advance(self, schedule: NoiseSchedule, eps: Tensor, noise: Tensor | None, clip: bool) -> None:
        """One step of every row, each by its own method. `noise` like x is needed where a row is ancestral."""
        t, t_next = self.t, self.plan.gather(1, self.position[:, None] + 1)[:, 0]
        alpha_bar, alpha_bar_next = schedule.alpha_bar(t, self.x), schedule.alpha_bar(t_next, self.x)
        kinds = {SAMPLERS[int(kind)] for kind in self.sampler.unique()}
        x = self.x
        if "ddim" in kinds:
            x = self._pick("ddim", ddim_step(self.x, eps, alpha_bar, alpha_bar_next, clip), x)
        if "ddpm" in kinds:
            assert noise is not None
            x = self._pick("ddpm", ddpm_step(self.x, eps, alpha_bar, alpha_bar_next, noise, clip), x)
        if "dpmpp_2m" in kinds:
            x = self._pick("dpmpp_2m", self._dpmpp(schedule, eps, t, t_next, clip), x)
        # ε is in double precision where the schedule ends in pure noise (Denoiser.epsilon).
        self.x, self.t_before, self.position = x.to(self.x.dtype), t, self.position + 1

    def _dpmpp(self, schedule: NoiseSchedule, eps: Tensor, t: Tensor, t_next: Tensor, clip: bool) -> Tensor:
        wide = self.x.double()
        alpha_bar, alpha_bar_next = schedule.alpha_bar(t, wide), schedule.alpha_bar(t_next, wide)
        x0 = predict_x0(wide, eps.double(), alpha_bar, clip)
        # The first step has no predecessor; the last one, to λ = ∞, is of first order as well.
        first_order = ((self.position == 0) | (t_next < 0)).view(-1, 1, 1, 1)
        lam_before = half_log_snr(schedule.alpha_bar(self.t_before, wide))
        x = dpmpp_2m_step(wide, x0, self.x0_before.double(), lam_before, alpha_bar, alpha_bar_next, first_order)
        self.x0_before = x0.to(self.x.dtype)
        return torch.where((t_next < 0).view(-1, 1, 1, 1), x0, x).to(self.x.dtype)

    def _pick(self, sampler: str, stepped: Tensor, otherwise: Tensor) -> Tensor:
        mine = (self.sampler == SAMPLERS.index(sampler)).view(-1, 1, 1, 1)
        return torch.where(mine, stepped, otherwise)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    seeds: list[int],
    adapters: Tensor | None = None,
    sampler: str = "ddim",
    steps: int = 25,
    adapt_from: int = 0,
    clip: bool | None = None,
    conditions: Conditions | None = None,
    domain: Domain = Domain.ITEM,
    stream: int = 0,
) -> Tensor:
    """Samples one batch from x_T to x0. This is the library's entry point; the service steps `Rows` itself.

    Shape: adapters [len(seeds), P] or None; conditions of len(seeds) rows or None; result [len(seeds), C, H, W], an x0
    (`Denoiser.decode` makes pictures of them). `clip` None takes the backbone's choice. Rows use their adapter at
    t ≥ `adapt_from` (K of EPAPA) and the backbone alone below. Raises ValueError for a K outside [0, T).
    The noise of a row is that of its seed in `domain` and `stream`, whatever else is in the batch.
    """
    denoiser.schedule.check_adapt_from(adapt_from)
    noises = [Noise(seed, domain, stream) for seed in seeds]

    def draw() -> Tensor:
        return torch.stack([noise.normal(denoiser.sample_shape) for noise in noises]).to(denoiser.device)

    rows = Rows.start(draw(), sampler, steps, denoiser.schedule.num_timesteps)
    for t in timesteps(denoiser.schedule.num_timesteps, steps).tolist():
        eps = denoiser.epsilon(rows.x, rows.t, adapters if t >= adapt_from else None, conditions)
        noise = draw() if sampler == "ddpm" else None
        rows.advance(denoiser.schedule, eps, noise, denoiser.clips if clip is None else clip)
    return rows.x
