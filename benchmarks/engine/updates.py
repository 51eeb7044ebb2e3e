"""Many users' updates in one backward pass against one user after another."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.engine.paired import Paired, take_turns
from papa.adapter import new_adapter
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser
from papa.updating import Labels, UpdateJob, update_many


def together(denoiser: Denoiser, users: int, groups: tuple[int, ...], turns: int) -> Paired:
    """`users` default updates of ten labels each, trained in groups of so many at once."""
    generator = torch.Generator().manual_seed(0)
    shape = (10, *denoiser.sample_shape)
    jobs = [
        UpdateJob(
            new_adapter(denoiser),
            Labels(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), torch.tensor([1.0, -1.0] * 5)),
            seed,
        )
        for seed in range(users)
    ]

    def by(group: int) -> None:
        for start in range(0, users, group):
            update_many(denoiser, jobs[start : start + group], DEFAULT_UPDATE)

    # One round takes a minute: a single update warms as well.
    update_many(denoiser, jobs[:1], DEFAULT_UPDATE)
    return take_turns({f"{group} at once": partial(by, group) for group in (1, *groups)}, turns, warm=False)
