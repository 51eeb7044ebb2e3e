"""Many users' updates in one backward pass against one user after another."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.engine.paired import Paired, take_turns
from papa.adapter import new_adapter
from papa.config import DEFAULT_UPDATE, UpdateConfig
from papa.denoiser import Denoiser
from papa.updating import Labels, UpdateJob, update_many


def update_jobs(denoiser: Denoiser, users: int) -> list[UpdateJob]:
    """Each user's first update, with ten labels of noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (10, *denoiser.sample_shape)
    return [
        UpdateJob(
            new_adapter(denoiser),
            Labels(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), torch.tensor([1.0, -1.0] * 5)),
            seed,
        )
        for seed in range(users)
    ]


def together(
    denoiser: Denoiser,
    users: int,
    groups: tuple[int, ...],
    turns: int,
    config: UpdateConfig = DEFAULT_UPDATE,
    until: float = float("inf"),
) -> Paired:
    """`users` updates of ten labels each, trained in groups of so many at once."""
    jobs = update_jobs(denoiser, users)

    def by(group: int) -> None:
        for start in range(0, users, group):
            update_many(denoiser, jobs[start : start + group], config)

    # One round takes a minute: a single update warms as well.
    update_many(denoiser, jobs[:1], config)
    alternatives = {f"{group} at once": partial(by, group) for group in (1, *groups)}
    return take_turns(alternatives, turns, warm=False, until=until)
