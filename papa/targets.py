"""Regression targets whose noise is averaged over a whole pool (Xu, Tong & Jaakkola, ICLR 2023, arXiv 2302.00670),
applied to preferences.

With p the backbone and g(x) the chance that the user likes x, the ideal denoisers of p · g and of p differ at x_t by

    ε_liked(x_t) − ε*(x_t) = −√(ᾱ / (1−ᾱ)) (E[x0 | x_t, liked] − E[x0 | x_t])

and a pool {x_i} of samples of p gives both expectations as weighted means, w_i ∝ exp(−‖x_t − √ᾱ x_i‖² / 2(1−ᾱ)).
Their difference equals P(disliked | x_t) (m_liked − m_disliked): one bounded term both pulls and pushes. On pictures
the weights are informative at high noise only; at lower noise one sample of the pool has nearly all the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from papa.schedule import NoiseSchedule


def pool_posterior(x_t: Tensor, t: Tensor, pool: Tensor, schedule: NoiseSchedule) -> Tensor:
    """w_i(x_t) = P(x0 = x_i | x_t) where p is uniform over the pool.

    Shape: x_t [n, ...], t [n] int64, pool [m, ...] → [n, m] float32, rows sum to 1.
    """
    alpha, variance = schedule.alpha(t, x_t).flatten(1), schedule.variance(t, x_t).flatten(1)
    flat, samples = x_t.flatten(1), pool.flatten(1).to(x_t)
    # ‖x_t‖² is the same for all i and cancels.
    squared = schedule.signal(t, x_t).flatten(1) * samples.square().sum(1) - 2 * alpha * (flat @ samples.T)
    return torch.softmax(-squared / (2 * variance), dim=1)


def liked_shift(x_t: Tensor, t: Tensor, pool: Tensor, liked: Tensor, schedule: NoiseSchedule) -> Tensor:
    """E[x0 | x_t, liked] − E[x0 | x_t] over the pool; 0 where nothing of the pool is liked.

    Shape: x_t [n, ...], t [n] int64, pool [m, ...], `liked` [m] the chance g of each, or [n, m] where the rows are of
    several users → like x_t.
    """
    weights = pool_posterior(x_t, t, pool, schedule)
    samples = pool.flatten(1).to(x_t)
    joint = weights * liked.to(x_t)
    mass = joint.sum(1)
    shift = joint @ samples / mass.clamp(min=torch.finfo(mass.dtype).tiny)[:, None] - weights @ samples
    return torch.where(mass[:, None] > 0, shift, torch.zeros_like(shift)).view_as(x_t)


def stable_target(
    eps_star: Tensor,
    x_t: Tensor,
    t: Tensor,
    pool: Tensor,
    liked: Tensor,
    schedule: NoiseSchedule,
    sharpness: float = 1.0,
) -> Tensor:
    """What ε_θ should be at x_t: ε*(x_t) − s α / σ (E[x0 | x_t, liked] − E[x0 | x_t]).

    s = 1 is the backbone restricted to what is liked. s > 1 sharpens as guidance does, and suppresses samples that
    are liked with less certainty. Shape: eps_star and x_t [n, ...], the others as in `liked_shift` → like x_t.
    """
    shift = liked_shift(x_t, t, pool, liked, schedule)
    return eps_star - sharpness * (schedule.signal(t, x_t) / schedule.variance(t, x_t)).sqrt() * shift
