"""The reverse process: one function per published method. Every row of a batch has its own timestep.

| here | paper |
|---|---|
| alpha, sigma | α_t, σ_t of the row's present timestep (√ᾱ_t, √(1−ᾱ_t) where variance is preserved) |
| alpha_next, sigma_next | those of its next timestep (1, 0 at the end) |
| eps | ε_θ(x_t, t) |
| x0 | the prediction of x_0 that ε implies |
| lam | log α − log σ, half the log signal-to-noise ratio |

All coefficients have shape [n, 1, 1, 1] and all samples [n, C, H, W].

On rectified flow "ddim" is Euler's method: α' x0 + σ' ε = x + (σ' − σ) v with v = ε − x0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from papa.denoiser import Conditions, Denoiser
from papa.noise import Domain, Noise
from papa.schedule import CLEAN, NoiseSchedule

SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")


def predict_x0(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, clip: bool) -> Tensor:
    """x0 = (x_t − σ ε) / α, clipped to [−1, 1] for pixel-space backbones."""
    x0 = (x - sigma * eps) / alpha
    return x0.clamp(-1, 1) if clip else x0


def ddim_step(x0: Tensor, eps: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
    """DDIM with η = 0: α' x0 + σ' ε (Song et al., arXiv 2010.02502, eq. 12)."""
    return alpha_next * x0 + sigma_next * eps


def ddpm_step(
    x: Tensor, x0: Tensor, noise: Tensor, kept: Tensor, added: Tensor, variance: Tensor, signal_next: Tensor,
    variance_next: Tensor,
) -> Tensor:  # fmt: skip
    """Ancestral sampling, the posterior q(x_{t'} | x_t, x0) with its own variance (Ho et al., arXiv 2006.11239, eq.
    6-7; for any α and σ Kingma et al., arXiv 2107.00630, eq. 25-27).

    Semantics: with q(x_t | x_{t'}) = N(√kept x_{t'}, added I), `variance` = σ², `signal_next` = α'² and
    `variance_next` = σ'²: mean = (α' added x0 + √kept σ'² x) / σ², variance = added σ'² / σ².
    """
    mean = (signal_next.sqrt() * added * x0 + kept.sqrt() * variance_next * x) / variance
    return mean + (added * variance_next / variance).sqrt() * noise


def dpmpp_2m_step(
    x: Tensor,
    x0: Tensor,
    x0_before: Tensor,
    h: Tensor,
    h_before: Tensor,
    ratio: Tensor,
    alpha_next: Tensor,
    first_order: Tensor,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2); rows where `first_order` holds take its first order.

    Semantics: h = λ' − λ, r = (λ − λ_before) / h, D = x0 + (x0 − x0_before) / (2r), ratio = σ' / σ,
    x' = ratio x − α' (e^{−h} − 1) D. At σ' = 0 this is x' = D.
    """
    slope = (x0 - x0_before) * (0.5 * h / h_before)
    direction = torch.where(first_order, x0, x0 + slope)
    return ratio * x - alpha_next * torch.expm1(-h) * direction


@dataclass(eq=False)
class Rows:
    """The sampler state of a batch of rows that need not know one another.

    `sampler` [n] indexes SAMPLERS; `plan` [n, S] float64 holds each row's descending timesteps, fractional ones too,
    and CLEAN behind the last; `position` [n] is the index into the plan of the step to come. `x` is x_t; `x0_before`
    and `t_before` are the previous step's, for the multistep method. A row is finished when plan[position] is CLEAN;
    then x is the sample.
    """

    x: Tensor
    sampler: Tensor
    plan: Tensor
    position: Tensor
    x0_before: Tensor
    t_before: Tensor

    @classmethod
    def start(cls, x: Tensor, sampler: str, plan: Tensor) -> Rows:
        """Fresh rows from x_T = `x` ~ N(0, I) that visit the same timesteps, `plan` [steps] (`NoiseSchedule.plan`)."""
        n = len(x)
        whole = F.pad(plan.double(), (0, 1), value=CLEAN).expand(n, -1).to(x.device)
        kind = torch.full((n,), SAMPLERS.index(sampler), dtype=torch.int64)
        zeros = torch.zeros(n, dtype=torch.int64, device=x.device)
        return cls(x, kind, whole, zeros, torch.zeros_like(x), zeros.double())

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """One batch of all rows, in order; shorter plans are padded."""
        longest = max(part.plan.shape[1] for part in parts)
        plans = [F.pad(part.plan, (0, longest - part.plan.shape[1]), value=CLEAN) for part in parts]
        names = ("x", "sampler", "position", "x0_before", "t_before")
        x, sampler, position, x0_before, t_before = (torch.cat([getattr(p, name) for p in parts]) for name in names)
        return cls(x, sampler, torch.cat(plans), position, x0_before, t_before)

    def select(self, index: Tensor) -> Rows:
        """The rows `index` [m] int64, in that order."""
        parts = (self.x, self.sampler, self.plan, self.position, self.x0_before, self.t_before)
        return Rows(*(part.index_select(0, index) for part in parts))

    @property
    def t(self) -> Tensor:
        """The timestep of the step to come, CLEAN for finished rows. Shape: [n] float64."""
        return self.plan.gather(1, self.position[:, None])[:, 0]

    def advance(self, schedule: NoiseSchedule, eps: Tensor, noise: Tensor | None, clip: bool) -> None:
        """One step of every row, each by its own method. `noise` like x is needed where a row is ancestral."""
        t, t_next = self.t, self.plan.gather(1, self.position[:, None] + 1)[:, 0]
        kinds = {SAMPLERS[int(kind)] for kind in self.sampler.unique()}
        x = self.x
        # All coefficients have ε's type: double precision where the schedule ends in pure noise (Denoiser.epsilon).
        x0 = predict_x0(x, eps, schedule.alpha(t, eps), schedule.sigma(t, eps), clip)
        if "ddim" in kinds:
            x = self._pick("ddim", ddim_step(x0, eps, schedule.alpha(t_next, eps), schedule.sigma(t_next, eps)), x)
        if "ddpm" in kinds:
            assert noise is not None
            kept, added = schedule.kept(t, t_next, eps)
            variance, variance_next = schedule.variance(t, eps), schedule.variance(t_next, eps)
            signal_next = schedule.signal(t_next, eps)
            stepped = ddpm_step(self.x, x0, noise, kept, added, variance, signal_next, variance_next)
            x = self._pick("ddpm", stepped, x)
        if "dpmpp_2m" in kinds:
            x = self._pick("dpmpp_2m", self._dpmpp(schedule, eps, t, t_next, clip), x)
        self.x, self.t_before, self.position = x.to(self.x.dtype), t, self.position + 1

    def _dpmpp(self, schedule: NoiseSchedule, eps: Tensor, t: Tensor, t_next: Tensor, clip: bool) -> Tensor:
        wide, last = self.x.double(), (t_next == CLEAN).view(-1, 1, 1, 1)
        x0 = predict_x0(wide, eps.double(), schedule.alpha(t, wide), schedule.sigma(t, wide), clip)
        # The first step has no predecessor; the last one, to λ = ∞, is of first order as well.
        first_order = (self.position == 0).view(-1, 1, 1, 1) | last
        lam = schedule.half_log_snr(t, wide)
        h = schedule.half_log_snr(t_next, wide) - lam
        h_before = lam - schedule.half_log_snr(self.t_before, wide)
        ratio = (schedule.variance(t_next, wide) / schedule.variance(t, wide)).sqrt()
        alpha_next = schedule.alpha(t_next, wide)
        x = dpmpp_2m_step(wide, x0, self.x0_before.double(), h, h_before, ratio, alpha_next, first_order)
        self.x0_before = x0.to(self.x.dtype)
        return torch.where(last, x0, x).to(self.x.dtype)

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
    (`Denoiser.decode` makes pictures of them). `clip` None takes the backbone's choice. Rows use their adapter
    from the noise level K of EPAPA (`adapt_from`) on, and the backbone alone below. Raises ValueError for a K outside
    [0, T).
    The noise of a row is that of its seed in `domain` and `stream`, whatever else is in the batch.
    """
    schedule = denoiser.schedule
    first_adapted = schedule.adapted_from(adapt_from)
    noises = [Noise(seed, domain, stream) for seed in seeds]

    def draw() -> Tensor:
        return torch.stack([noise.normal(denoiser.sample_shape) for noise in noises]).to(denoiser.device)

    plan = schedule.plan(steps)
    rows = Rows.start(draw(), sampler, plan)
    for t in plan.tolist():
        eps = denoiser.epsilon(rows.x, rows.t, adapters if t >= first_adapted else None, conditions)
        noise = draw() if sampler == "ddpm" else None
        rows.advance(schedule, eps, noise, denoiser.clips if clip is None else clip)
    return rows.x
