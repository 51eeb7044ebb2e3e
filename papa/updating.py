"""One interaction step: labelled samples in, the next adapter out, for one user or for many in the same batch.

| step | function | what it does |
|---|---|---|
| remember | `remember` | joins the new labels with the replay, and notices a changed taste |
| weigh | `weigh` | decides how often each known sample is drawn |
| descend | `descend` | takes a few Adam steps on `papa.objective.personal_loss`, all users in one batch |
| average | `average` | mixes the new iterate into what is served |

Each user's rows, noise and timesteps come from the user's own seed, and gradients reach only the user's own
weights. A user's result is therefore the same whether the user is trained alone or with others, up to the order of
float sums.

Adam starts from zero moments at every update. The state that travels with a revision is then only the replay and the
last iterate, a revision can be rebuilt from its parent, its labels and its seed, and rollback needs nothing undone. A
rebuilt revision is the same bit for bit where threads and batch are the same; else sums are taken in another order, and
the iterate differs by up to 3 % of what it moved (tests/papa/test_rebuilding.py).

What is served is not the last iterate but a running average over the updates in which older ones fade (Polyak &
Juditsky, SIAM J. Control Optim. 30(4), 1992). Few steps at a high rate learn fast and scatter around what they learn.
Where A is frozen, ΔW is linear in B, so the average of adapters is the average of what they do to the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from papa.adapter import Adapter
from papa.config import UpdateConfig
from papa.denoiser import Conditions, Denoiser
from papa.noise import Domain, Noise
from papa.objective import RowShare, draw_rows, personal_loss, squared_error
from papa.pool import Pool
from papa.regions import typical_chances
from papa.replay import Replay
from papa.targets import stable_target
from papa.taste import Head, Taste, likely

CPU_ROWS = 128
"""Rows of one pass on a CPU: the activations of more rows no longer fit its caches."""
FEATURE_ROWS = 64
"""New samples of which features are computed in one pass."""
QUESTIONS = 9
"""Questions that a head keeps: those of three pages of ten."""


@dataclass(frozen=True, eq=False)
class Labels:
    """New labels in order. Shape: samples [n, C, H, W] uint8 (pixels) or float16 (latents), grades [n] in [−1, 1] and
    not 0. `prompts` has the prompt of each sample; it is empty where no sample had one."""

    samples: Tensor
    grades: Tensor
    prompts: tuple[str, ...] = ()
    sequences: tuple[int, ...] = ()
    """The sequence number of each label; empty when labels are never taken back."""


@dataclass(frozen=True, eq=False)
class UpdateJob:
    """One user's part of a joint update; `seed` fixes all its randomness."""

    adapter: Adapter
    labels: Labels
    seed: int


@dataclass(frozen=True)
class UpdateStats:
    """Statistics of an update.

    `loss_first` and `loss_last` belong to the first and the last Adam step, `norm` is that of the last iterate's A and
    B, `change` the distance from where the update began. `differentiated` and `plain` count U-Net sample-evaluations.
    `restarted`: the taste had changed and learning began afresh.
    """

    likes: int
    dislikes: int
    loss_first: float
    loss_last: float
    norm: float
    change: float
    differentiated: int
    plain: int
    restarted: bool = False


@dataclass(frozen=True, eq=False)
class Memory:
    """The state of a user at the beginning of an update.

    `adapter` is the starting point, on the backbone's device. It is a fresh one if the taste has changed
    (`restarted`). `replay` includes the new labels.
    """

    adapter: Adapter
    replay: Replay
    labels: Labels
    restarted: bool
    noise: Noise

    @property
    def start(self) -> Tensor:
        """The weights from which learning goes on. Shape: [P]."""
        return self.adapter.weights if self.adapter.iterate is None else self.adapter.iterate


@dataclass(frozen=True, eq=False)
class Lesson:
    """The samples from which a user's rows are drawn.

    `x0` [n, C, H, W] holds the replay's samples and then the pool's. `shares` says how often each is drawn. Sample i
    has the condition in row `prompt[i]` of `conditions`.
    """

    x0: Tensor
    shares: tuple[RowShare, ...]
    prompt: Tensor
    conditions: Conditions | None
    liked: Tensor
    """How likely each sample of the pool is liked. Shape: [m] in [0, 1], empty without a pool."""
    noise: Noise
    head: Head | None
    """Predicts from the labels how likely any sample is liked; a part of the next adapter."""

    @property
    def rows(self) -> int:
        """Rows of one Adam step."""
        return sum(share.count for share in self.shares)


def update(
    denoiser: Denoiser, adapter: Adapter, labels: Labels, config: UpdateConfig, seed: int
) -> tuple[Adapter, UpdateStats]:
    """The next adapter of one user."""
    return update_many(denoiser, [UpdateJob(adapter, labels, seed)], config)[0]


def update_many(
    denoiser: Denoiser, jobs: Sequence[UpdateJob], config: UpdateConfig
) -> list[tuple[Adapter, UpdateStats]]:
    """The next adapter of each job's user. All users share the forward and backward pass of an Adam step; on a CPU a
    pass holds at most CPU_ROWS rows.

    Raises ValueError for a job that has neither labels nor a replay, or with a grade outside [−1, 1] or equal to 0, and
    for a K outside [0, T).
    """
    denoiser.schedule.adapted_from(config.adapt_from)
    memories = [remember(denoiser, job, config) for job in jobs]
    lessons = [weigh(denoiser, memory, config) for memory in memories]
    start = torch.stack([memory.start for memory in memories])
    iterates, losses = descend(denoiser, start, lessons, config)
    return [
        average(denoiser, memory, lesson, iterate, loss, config)
        for memory, lesson, iterate, loss in zip(memories, lessons, iterates, losses.unbind(1), strict=True)
    ]


def remember(denoiser: Denoiser, job: UpdateJob, config: UpdateConfig) -> Memory:
    """Adds the new labels to the replay and bounds it.

    If the taste has changed, it keeps only the newest labels and starts from a fresh adapter.

    Runs the backbone once over the new samples. Raises ValueError for unusable labels.
    """
    labels = job.labels
    if not len(labels.grades) + len(job.adapter.replay) or not bool(
        ((labels.grades.abs() <= 1) & (labels.grades != 0)).all()
    ):
        raise ValueError(
            "an update needs labels, new ones or remembered ones, each with a grade in [-1, 1] that is not 0"
        )
    noise = Noise(job.seed, Domain.UPDATE)
    fresh = Replay(labels.samples, labels.grades, torch.zeros(len(labels.grades), 0))
    chunks = [denoiser.features(x0.to(denoiser.device)) for x0 in fresh.x0().split(FEATURE_ROWS)] if len(fresh) else []
    seen = torch.cat([torch.zeros(0, denoiser.feature_size, device=denoiser.device), *chunks])
    features = seen.cpu().to(torch.float16)
    joined = Replay.join(
        [job.adapter.replay, Replay(fresh.samples, labels.grades, features, labels.prompts, labels.sequences)]
    )
    known = joined.latest().kept(config)
    replay = known.of_this_taste(config, None if denoiser.pool is None else denoiser.pool.unrated)
    restarted = len(replay) < len(known)
    before = Adapter(denoiser.layout.initial(Noise(job.seed, Domain.ADAPTER)), replay) if restarted else job.adapter
    iterate = None if before.iterate is None else before.iterate.to(denoiser.device)
    adapter = Adapter(before.weights.to(denoiser.device), replay, iterate)
    return Memory(adapter, replay, labels, restarted, noise)


def weigh(denoiser: Denoiser, memory: Memory, config: UpdateConfig) -> Lesson:
    """Computes how often each sample of the replay and of the pool is drawn, for likes and for dislikes."""
    replay, pool = memory.replay, denoiser.pool
    unrated = None if pool is None else pool.unrated
    taste = Taste(replay.features, replay.grades, unrated, config.trust_ridge, config.neighbours)
    x0 = replay.x0() if pool is None else torch.cat([replay.x0(), pool.x0])
    foretold = torch.zeros(0) if pool is None else taste.foretold(pool.features)
    trusted = replay.grades.abs() * taste.trust(config.trust)
    shares = []
    for sign, count in ((1.0, config.like_rows), (-1.0, config.dislike_rows if config.enhancer else 0)):
        known = torch.where(replay.grades.sign() == sign, trusted, torch.zeros(()))
        if count and bool((replay.grades.sign() == sign).any()):
            known = known * taste.importance if sign > 0 else known
            shares.append(RowShare(sign, count, _probabilities(known, sign * foretold, config.pool_share)))
    asked = sorted(set(replay.asked()))
    prompt = torch.tensor([asked.index(each) for each in replay.asked()])
    liked = likely(foretold, config.steepness)
    head = taste.head()
    if head is not None and pool is not None:
        head = informed(head, taste, pool)
    return Lesson(x0, tuple(shares), prompt, denoiser.conditions(asked), liked, memory.noise, head)


def informed(head: Head, taste: Taste, pool: Pool) -> Head:
    """The head with what the pool tells beside the labels: what is typical of each region, and what to ask next."""
    first = pool.first_seed
    asked = [] if first is None else [first + index for index in taste.questions(pool.features, QUESTIONS)]
    return replace(
        head,
        regions=pool.regions,
        typical_chances=typical_chances(pool.regions, pool.unrated.z, head.probability(pool.features)),
        questions=tuple(asked),
    )


def descend(
    denoiser: Denoiser, start: Tensor, lessons: Sequence[Lesson], config: UpdateConfig
) -> tuple[Tensor, Tensor]:
    """`config.steps` Adam steps on every user's own loss. Shape: start [U, P] → iterates [U, P], losses [steps, U]."""
    weights = start.clone()
    first, second, losses = torch.zeros_like(start), torch.zeros_like(start), []
    for step in range(1, config.steps + 1):
        loss, gradient = _gradients(denoiser, weights, lessons, config)
        weights.mul_(1 - config.weight_decay)
        weights -= config.learning_rate * _adam_direction(_clipped(gradient, config), first, second, step)
        losses.append(loss.cpu())
    return weights, torch.stack(losses)


def average(
    denoiser: Denoiser, memory: Memory, lesson: Lesson, iterate: Tensor, losses: Tensor, config: UpdateConfig
) -> tuple[Adapter, UpdateStats]:
    """Averages what is served: (1 − a) · iterate + a · the weights served before, a = `config.averaging`.

    Shape: iterate [P], losses [steps].
    """
    grades, evaluations = memory.labels.grades, lesson.rows * config.steps
    stats = UpdateStats(
        likes=int((grades > 0).sum()),
        dislikes=int((grades < 0).sum()),
        loss_first=float(losses[0]),
        loss_last=float(losses[-1]),
        norm=denoiser.layout.norm(iterate),
        change=float((iterate - memory.start).norm()),
        restarted=memory.restarted,
        differentiated=evaluations,
        plain=evaluations + len(grades),
    )
    served = iterate.lerp(memory.adapter.weights, config.averaging)
    return Adapter(served.cpu(), memory.replay, iterate.cpu(), lesson.head), stats


def _probabilities(known: Tensor, foretold: Tensor, pool_share: float) -> Tensor:
    """A share `pool_share` of the rows is drawn from the pool by its predicted grades, the rest from the replay by
    `known`. Without predictions all rows come from the replay. Shape: [n], [m] → [n + m], sums to 1."""
    known, foretold = known / known.sum(), foretold.clamp(0, 1)
    total = float(foretold.sum())
    if not total or not pool_share:
        return torch.cat([known, torch.zeros_like(foretold)])
    return torch.cat([known * (1 - pool_share), foretold * (pool_share / total)])


def _gradients(
    denoiser: Denoiser, weights: Tensor, lessons: Sequence[Lesson], config: UpdateConfig
) -> tuple[Tensor, Tensor]:
    """L per user and ∂L/∂weights. Shape: weights [U, P] → [U], [U, P]."""
    together = len(lessons)
    if denoiser.device.type == "cpu":
        together = max(1, CPU_ROWS // (config.like_rows + config.dislike_rows))
    losses, gradients = list[Tensor](), list[Tensor]()
    for begin in range(0, len(lessons), together):
        own = weights[begin : begin + together].detach().requires_grad_()
        loss = _joint_loss(denoiser, own, lessons[begin : begin + together], config)
        gradients += torch.autograd.grad(loss.sum(), own)
        losses.append(loss.detach())
    return torch.cat(losses), torch.cat(gradients)


def _joint_loss(denoiser: Denoiser, weights: Tensor, lessons: Sequence[Lesson], config: UpdateConfig) -> Tensor:
    """L per user, each an average over its own rows. Shape: weights [U, P] → [U]."""
    schedule = denoiser.schedule
    first = schedule.adapted_from(config.adapt_from)
    drawn = [_drawn(lesson, first, schedule.num_timesteps) for lesson in lessons]
    owner = torch.cat([torch.full((len(rows[2]),), i) for i, (rows, _) in enumerate(drawn)]).to(weights.device)
    x0, eps, t, grade = (torch.cat([rows[i] for rows, _ in drawn]).to(weights.device) for i in range(4))
    asked = [each for _, each in drawn if each is not None]
    conditions = Conditions.concat(asked) if asked else None
    x_t = schedule.add_noise(x0, eps, t)
    with torch.no_grad():
        eps_star = denoiser.epsilon(x_t, t, None, conditions)
    eps_theta = denoiser.epsilon(x_t, t, weights.index_select(0, owner), conditions)
    weight = _relative_weights(denoiser, first)[t]
    per_row = personal_loss(eps, eps_theta, eps_star, weight, grade, config)
    pool, stable = denoiser.pool, _averaged(t, owner, lessons, config)
    if pool is not None and len(stable):
        liked = torch.stack([lesson.liked for lesson in lessons]).to(weights.device)[owner[stable]]
        samples = pool.x0.to(weights.device)
        target = stable_target(eps_star[stable], x_t[stable], t[stable], samples, liked, schedule, config.sharpness)
        error = squared_error(eps_theta[stable], target)
        per_row = per_row.index_copy(0, stable, (grade.abs() * weight)[stable] * error)
    return torch.zeros(len(lessons), device=weights.device).index_add(0, owner, per_row.to(weights.dtype))


def _averaged(t: Tensor, owner: Tensor, lessons: Sequence[Lesson], config: UpdateConfig) -> Tensor:
    """The rows whose target is averaged over the pool: those of enough noise, of users whose labels tell likes from
    dislikes. Shape: t, owner [n] → [m] int64."""
    told = torch.tensor([lesson.head is not None for lesson in lessons], device=t.device)
    return ((t >= config.stable_from) & told[owner]).nonzero()[:, 0]


def _drawn(lesson: Lesson, low: int, high: int) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Conditions | None]:
    """Draws one step's rows of a user: x0, ε, t, y / count and the conditions of each row."""
    index, t, grade = draw_rows(lesson.shares, low, high, lesson.noise)
    x0 = lesson.x0[index]
    noise = lesson.noise.normal(x0.shape)
    conditions = None if lesson.conditions is None else lesson.conditions.select(lesson.prompt[index])
    return (x0, noise, t, grade), conditions


def _relative_weights(denoiser: Denoiser, first: int) -> Tensor:
    """w_t divided by its mean on [first, T): the sum over timesteps becomes a mean. Adam is invariant to the factor."""
    table = denoiser.schedule.loss_weights()
    return (table / table[first:].mean()).float().to(denoiser.device)


def _clipped(gradient: Tensor, config: UpdateConfig) -> Tensor:
    norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return torch.where(norm > config.max_grad_norm, gradient * (config.max_grad_norm / norm), gradient)


def _adam_direction(gradient: Tensor, first: Tensor, second: Tensor, step: int) -> Tensor:
    """m̂ / (√v̂ + ε) with β = (0.9, 0.999) (Kingma & Ba, arXiv 1412.6980). It is elementwise, so users do not mix."""
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    return (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
