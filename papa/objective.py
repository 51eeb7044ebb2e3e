"""The PAPA objective, one function per term (arXiv 2607.00486; symbols as in the paper), and how its sums are drawn.

| here | paper |
|---|---|
| eps | ε, the noise that made x_t |
| eps_theta, eps_star | ε_θ(x_t, t) of the adapter, ε_θ*(x_t, t) of the frozen backbone |
| weight | w_t |
| grade | y(x) in [−1, 1] |
| likes_loss, enhancer_loss, quality_loss | L^p, L^PAE, L^QPDE |

Every loss maps rows to rows (shape [n]); ‖·‖² is the mean over all values of a sample. `papa_loss` is the published
sum of the terms, `personal_loss` the product's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from papa.config import UpdateConfig
from papa.noise import Noise


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖² per row. Shape: a, b [n, ...] → [n]."""
    return (a - b).square().flatten(1).mean(dim=1)


def likes_loss(eps: Tensor, eps_theta: Tensor, weight: Tensor, grade: Tensor) -> Tensor:
    """L^p = y w_t ‖ε − ε_θ‖² where y > 0, else 0: pulls towards the liked samples."""
    return grade.clamp(min=0) * weight * squared_error(eps, eps_theta)


def enhancer_loss(eps: Tensor, eps_theta: Tensor, weight: Tensor, grade: Tensor) -> Tensor:
    """L^PAE = y w_t ‖ε − ε_θ‖² where y < 0, else 0: ascent, pushes away from the disliked samples. Unbounded below."""
    return grade.clamp(max=0) * weight * squared_error(eps, eps_theta)


def bounded_enhancer_loss(
    eps: Tensor, eps_theta: Tensor, eps_star: Tensor, weight: Tensor, grade: Tensor, beta: float
) -> Tensor:
    """−|y| w_t log σ(β (‖ε − ε_θ‖² − ‖ε − ε_θ*‖²)) · 2/β where y < 0, else 0: the bounded L^PAE.

    The gradient equals that of `enhancer_loss` while θ is still at the backbone, and fades once the error on the
    disliked sample exceeds the backbone's by a few 1/β, so forgetting stops once it has succeeded (compare negative
    preference optimisation, Zhang et al., arXiv 2404.05868). Bounded below by 0.
    """
    gap = squared_error(eps, eps_theta) - squared_error(eps, eps_star)
    return -grade.clamp(max=0) * weight * F.softplus(-beta * gap) * (2 / beta)


def bounded_likes_loss(
    eps: Tensor, eps_theta: Tensor, eps_star: Tensor, weight: Tensor, grade: Tensor, beta: float
) -> Tensor:
    """y w_t log(1 + exp(β (‖ε − ε_θ‖² − ‖ε − ε_θ*‖²))) · 2/β where y > 0, else 0: the bounded L^p.

    The gradient equals that of `likes_loss` while θ is at the backbone. It fades for a sample that θ already explains
    better than the backbone, so common likes do not crowd out rare ones.
    """
    gap = squared_error(eps, eps_theta) - squared_error(eps, eps_star)
    return grade.clamp(min=0) * weight * F.softplus(beta * gap) * (2 / beta)


def quality_loss(eps_theta: Tensor, eps_star: Tensor, grade: Tensor) -> Tensor:
    """L^QPDE = ‖ε_θ − ε_θ*‖² where y > 0, else 0: holds the model near the backbone."""
    return (grade > 0) * squared_error(eps_theta, eps_star)


def papa_loss(
    eps: Tensor, eps_theta: Tensor, eps_star: Tensor, weight: Tensor, grade: Tensor, gamma: float, eta: float
) -> Tensor:
    """γ (L^p + L^PAE) + η L^QPDE, as published. Summed over samples and over t in [K, T) it is L(θ)."""
    preference = likes_loss(eps, eps_theta, weight, grade) + enhancer_loss(eps, eps_theta, weight, grade)
    return gamma * preference + eta * quality_loss(eps_theta, eps_star, grade)


def personal_loss(
    eps: Tensor, eps_theta: Tensor, eps_star: Tensor, weight: Tensor, grade: Tensor, config: UpdateConfig
) -> Tensor:
    """The product's loss: each term bounded and switched by `config`, γ = 1. Summed over a user's rows it is L(θ).

    L^PAE is bounded; L^p is bounded unless `like_beta` is 0 and absent without `use_likes`; L^QPDE is weighed by y.
    """
    loss = config.enhancer * bounded_enhancer_loss(eps, eps_theta, eps_star, weight, grade, config.enhancer_beta)
    loss = loss + config.eta * grade.clamp(min=0) * quality_loss(eps_theta, eps_star, grade)
    if not config.use_likes:
        return loss
    if config.like_beta:
        return loss + bounded_likes_loss(eps, eps_theta, eps_star, weight, grade, config.like_beta)
    return loss + likes_loss(eps, eps_theta, weight, grade)


@dataclass(frozen=True, eq=False)
class RowShare:
    """The rows of one kind that every Adam step draws.

    `count` rows of `sign` (likes +1, dislikes −1) are drawn from all known samples with `probabilities` [n], which sum
    to 1.
    """

    sign: float
    count: int
    probabilities: Tensor


def draw_rows(shares: Sequence[RowShare], low: int, high: int, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """One step's rows: the index of a sample, a timestep in [low, high) and y / count.

    Samples are drawn with probability ∝ |y|, so that a row itself counts as ±1; timesteps are stratified within each
    kind. Shape: three tensors [rows], the first two int64.
    """
    index, t, grade = [], [], []
    for share in shares:
        index.append(noise.choice(share.probabilities, share.count))
        t.append(stratified_timesteps(low, high, (1, share.count), noise)[0])
        grade.append(torch.full((share.count,), share.sign / share.count))
    return torch.cat(index), torch.cat(t), torch.cat(grade)


def stratified_timesteps(low: int, high: int, shape: tuple[int, int], noise: Noise) -> Tensor:
    """m timesteps per sample, one uniform in each of m equal strata of [low, high).

    Shape: `shape` is (samples, m), the result has it, int64, ascending along m. The mean of f over a row, times
    high − low, is an unbiased estimate of Σ_{t∈[low, high)} f(t): each real position u in the stratum is uniform and
    floor(u) then falls on t with the share of the stratum that t covers.
    """
    samples, m = shape
    position = noise.uniform((samples, m))
    width = (high - low) / m
    return (low + (torch.arange(m) + position) * width).floor().long().clamp(max=high - 1)
