"""One interaction step: labelled samples in, the next adapter out, for one user or for many in the same batch.

Each user's rows, noise and timesteps come from the user's own generator and gradients reach only the user's own
weights, so a user's result is the same whether the user is trained alone or with others (up to the order of float
sums).

Adam starts from zero moments at every update: the state that travels with a revision is then only the replay and the
last iterate, a revision can be rebuilt from its parent, its labels and its seed, and rollback needs nothing undone.

What is served is not the last iterate but an average over the updates, Polyak's (Polyak & Juditsky, SIAM J. Control
Optim. 30(4), 1992), with the older ones fading: few steps of a high rate learn fast and scatter around what they learn,
and where A is frozen ΔW is linear in B, so that the average of adapters is the average of what they do to the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.config import UpdateConfig
from papa.denoiser import Conditions, Denoiser
from papa.objective import bounded_enhancer_loss, bounded_likes_loss, likes_loss, quality_loss, stratified_timesteps
from papa.replay import Replay
from papa.taste import Taste

CPU_ROWS = 128
"""Rows of a pass on a CPU: what more of them need no longer lies in its caches, and a row costs more again."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What a revision holds: `weights` [P] float32 that samples are made with, the replay, and `iterate` [P], where
    learning goes on from: `weights` are a running average of the iterates. None: from `weights`."""

    weights: Tensor
    replay: Replay
    iterate: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """New opinions in order. Shape: samples [n, C, H, W] uint8 (pixels) or float16 (latents), grades [n] in [−1, 1],
    not 0. `prompts` says what each sample was asked to show, none of them when empty."""

    samples: Tensor
    grades: Tensor
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class UpdateJob:
    """One user's part of a joint update; `seed` fixes all its randomness."""

    adapter: Adapter
    labels: Labels
    seed: int


@dataclass(frozen=True)
class UpdateStats:
    """What an update did. `restarted`: the taste had changed, it began afresh. `loss_first` and `loss_last`: of
    the first and the last Adam step; `norm`: of the last iterate's A and B; `change`: how far that went from where it
    began; `differentiated` and `plain`: U-Net sample-evaluations."""

    likes: int
    dislikes: int
    loss_first: float
    loss_last: float
    norm: float
    change: float
    differentiated: int
    plain: int
    restarted: bool = False


def new_adapter(denoiser: Denoiser, seed: int = 0) -> Adapter:
    """A fresh adapter that changes nothing yet (B = 0), with an empty replay."""
    weights = denoiser.layout.initial(torch.Generator().manual_seed(seed))
    empty = torch.zeros(0, *denoiser.sample_shape, dtype=denoiser.sample_dtype)
    return Adapter(weights, Replay(empty, torch.zeros(0), torch.zeros(0, denoiser.feature_size, dtype=torch.float16)))


def update(
    denoiser: Denoiser, adapter: Adapter, labels: Labels, config: UpdateConfig, seed: int
) -> tuple[Adapter, UpdateStats]:
    """The next adapter of one user."""
    return update_many(denoiser, [UpdateJob(adapter, labels, seed)], config)[0]


def update_many(
    denoiser: Denoiser, jobs: Sequence[UpdateJob], config: UpdateConfig
) -> list[tuple[Adapter, UpdateStats]]:
    """The next adapter of each job's user, all of them in one forward and backward pass a step (on a CPU in passes of
    CPU_ROWS rows).

    Raises ValueError for a job without labels or with a grade outside [−1, 1] or equal to 0.
    """
    users = [_User(denoiser, job, config) for job in jobs]
    start = torch.stack([user.start for user in users])
    weights = start.clone()
    first, second, losses = torch.zeros_like(start), torch.zeros_like(start), []
    for step in range(1, config.steps + 1):
        loss, gradient = _gradients(denoiser, weights, users, config)
        weights.mul_(1 - config.weight_decay)
        weights -= config.learning_rate * _adam_direction(_clipped(gradient, config), first, second, step)
        losses.append(loss.cpu())
    return [user.result(weights[i], [float(x[i]) for x in losses]) for i, user in enumerate(users)]


class _User:
    """One user's replay and generator during an update."""

    def __init__(self, denoiser: Denoiser, job: UpdateJob, config: UpdateConfig) -> None:
        grades = job.labels.grades
        if not len(grades) or not bool(((grades.abs() <= 1) & (grades != 0)).all()):
            raise ValueError("an update needs labels, each with a grade in [-1, 1] that is not 0")
        self.config, self.labels, self.layout = config, job.labels, denoiser.layout
        self.generator = torch.Generator().manual_seed(job.seed)
        prompts = job.labels.prompts
        fresh = Replay(job.labels.samples, grades, torch.zeros(len(grades), 0))
        features = denoiser.features(fresh.x0().to(denoiser.device)).cpu().to(torch.float16)
        joined = Replay.join([job.adapter.replay, Replay(fresh.samples, grades, features, prompts)])
        known = joined.latest().kept(config)
        self.pool = denoiser.pool
        unrated = None if self.pool is None else self.pool.unrated
        self.replay = known.of_this_taste(config, unrated)
        self.restarted = len(self.replay) < len(known)
        before = job.adapter
        if self.restarted:
            before = Adapter(denoiser.layout.initial(self.generator), self.replay)
        self.served = before.weights.to(denoiser.device)
        self.start = self.served if before.iterate is None else before.iterate.to(denoiser.device)
        self.x0 = self.replay.x0()
        taste = Taste(self.replay.features, self.replay.grades, unrated, config.trust_ridge, config.neighbours)
        self.trusted, self.importance, self.foretold = taste.trust(config.trust), taste.importance, torch.zeros(0)
        if self.pool is not None:
            self.x0 = torch.cat([self.x0, self.pool.x0])
            self.foretold = taste.foretold(self.pool.features)
        asked = sorted(set(self.replay.asked()))
        self.which = torch.tensor([asked.index(prompt) for prompt in self.replay.asked()])
        self.conditions = denoiser.conditions(asked)
        likes = (1.0, config.like_rows)
        dislikes = (-1.0, config.dislike_rows if config.enhancer else 0)
        signs = self.replay.grades.sign()
        self.kinds = [
            (sign, count, self._probabilities(sign)) for sign, count in (likes, dislikes) if count and sign in signs
        ]
        self.rows = 0

    def _probabilities(self, sign: float) -> Tensor:
        """How often a row of that kind is drawn: from the replay by its grade's size, the trust in it and, if liked,
        its importance; from the pool by the foretold grade. Shape: [n + m], sums to 1."""
        config, grades = self.config, self.replay.grades
        known = torch.where(grades.sign() == sign, grades.abs() * self.trusted, torch.zeros(()))
        if sign > 0:
            known = known * self.importance
        known = known / known.sum()
        share = (sign * self.foretold).clamp(0, 1)
        total = float(share.sum())
        if not total or not config.pool_share:
            return torch.cat([known, torch.zeros_like(share)])
        return torch.cat([known * (1 - config.pool_share), share * (config.pool_share / total)])

    def draw(self, high: int) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Conditions | None]:
        """The rows of one step: x0, ε, t, y / number of rows of its kind; and what they were asked to show."""
        picks, times, grades = [], [], []
        for sign, count, probabilities in self.kinds:
            rows = torch.multinomial(probabilities, count, replacement=True, generator=self.generator)
            picks.append(rows)
            times.append(stratified_timesteps(self.config.adapt_from, high, (1, count), self.generator)[0])
            # Rows are drawn by |grade|, so that a row itself counts as ±1.
            grades.append(torch.full((count,), sign / count))
        chosen_rows = torch.cat(picks)
        x0 = self.x0[chosen_rows]
        noise = torch.randn(x0.shape, generator=self.generator)
        self.rows = len(x0)
        conditions = None if self.conditions is None else self.conditions.select(self.which[chosen_rows])
        return (x0, noise, torch.cat(times), torch.cat(grades)), conditions

    def result(self, after: Tensor, losses: list[float]) -> tuple[Adapter, UpdateStats]:
        grades, evaluations = self.labels.grades, self.rows * self.config.steps
        stats = UpdateStats(
            likes=int((grades > 0).sum()),
            dislikes=int((grades < 0).sum()),
            loss_first=losses[0],
            loss_last=losses[-1],
            norm=self.layout.norm(after),
            change=float((after - self.start).norm()),
            restarted=self.restarted,
            differentiated=evaluations,
            plain=evaluations + len(grades),
        )
        weights = after.lerp(self.served, self.config.averaging)
        return Adapter(weights.cpu(), self.replay, after.cpu()), stats


def _gradients(denoiser: Denoiser, weights: Tensor, users: list[_User], config: UpdateConfig) -> tuple[Tensor, Tensor]:
    """L per user and ∂L/∂weights. Shape: weights [U, P] → [U], [U, P]."""
    together = len(users)
    if denoiser.device.type == "cpu":
        together = max(1, CPU_ROWS // (config.like_rows + config.dislike_rows))
    losses, gradients = list[Tensor](), list[Tensor]()
    for start in range(0, len(users), together):
        own = weights[start : start + together].detach().requires_grad_()
        loss = _joint_loss(denoiser, own, users[start : start + together], config)
        gradients += torch.autograd.grad(loss.sum(), own)
        losses.append(loss.detach())
    return torch.cat(losses), torch.cat(gradients)


def _joint_loss(denoiser: Denoiser, weights: Tensor, users: list[_User], config: UpdateConfig) -> Tensor:
    """L per user, each an average over its own rows. Shape: weights [U, P] → [U]."""
    schedule = denoiser.schedule
    drawn = [user.draw(schedule.num_timesteps) for user in users]
    owner = torch.cat([torch.full((len(rows[2]),), i) for i, (rows, _) in enumerate(drawn)]).to(weights.device)
    x0, eps, t, grade = (torch.cat([rows[i] for rows, _ in drawn]).to(weights.device) for i in range(4))
    asked = [each for _, each in drawn if each is not None]
    conditions = Conditions.concat(asked) if asked else None
    x_t = schedule.add_noise(x0, eps, t)
    with torch.no_grad():
        eps_star = denoiser.epsilon(x_t, t, None, conditions)
    eps_theta = denoiser.epsilon(x_t, t, weights.index_select(0, owner), conditions)
    weight = _relative_weights(denoiser, config.adapt_from)[t]
    per_row = config.enhancer * bounded_enhancer_loss(eps, eps_theta, eps_star, weight, grade, config.enhancer_beta)
    per_row = per_row + config.eta * grade.clamp(min=0) * quality_loss(eps_theta, eps_star, grade)
    if config.use_likes:
        per_row = per_row + (
            bounded_likes_loss(eps, eps_theta, eps_star, weight, grade, config.like_beta)
            if config.like_beta
            else likes_loss(eps, eps_theta, weight, grade)
        )
    return torch.zeros(len(users), device=weights.device).index_add(0, owner, per_row)


def _relative_weights(denoiser: Denoiser, adapt_from: int) -> Tensor:
    """w_t over its mean on [K, T): the sum over timesteps becomes a mean, which Adam cannot tell apart."""
    table = denoiser.schedule.loss_weights()
    return (table / table[adapt_from:].mean()).float().to(denoiser.device)


def _clipped(gradient: Tensor, config: UpdateConfig) -> Tensor:
    norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return torch.where(norm > config.max_grad_norm, gradient * (config.max_grad_norm / norm), gradient)


def _adam_direction(gradient: Tensor, first: Tensor, second: Tensor, step: int) -> Tensor:
    """m̂ / (√v̂ + ε) with β = (0.9, 0.999) (Kingma & Ba, arXiv 1412.6980), elementwise and so separate per user."""
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    return (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
