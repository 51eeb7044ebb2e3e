"""The replay: a bounded memory of what a user has liked and disliked (D_p and D_np)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.config import UpdateConfig
from papa.pixels import to_x0
from papa.taste import Unrated, changed


@dataclass(frozen=True, eq=False)
class Replay:
    """Remembered samples, oldest first.

    Shape: `samples` [n, C, H, W], uint8 for pixels (−1…1 as 0…255) or float16 for latents; `grades` [n] float32, not 0;
    `features` [n, F] float16, the backbone's own description of each sample.
    """

    samples: Tensor
    grades: Tensor
    features: Tensor
    prompts: tuple[str, ...] = ()
    """The prompt of each sample; empty when no sample had one."""
    sequences: tuple[int, ...] = ()
    """The sequence number of each label, by which it can be taken back; 0 when unknown."""

    def __len__(self) -> int:
        return len(self.grades)

    @classmethod
    def join(cls, parts: list[Replay]) -> Replay:
        """Concatenates replays, oldest first."""
        samples, grades, features = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("samples", "grades", "features")
        )
        prompts = tuple(prompt for part in parts for prompt in part.asked())
        sequences = tuple(number for part in parts for number in part.numbers())
        return cls(samples, grades, features, prompts if any(prompts) else (), sequences if any(sequences) else ())

    def asked(self) -> tuple[str, ...]:
        """One prompt per sample, "" for none."""
        return self.prompts or ("",) * len(self)

    def numbers(self) -> tuple[int, ...]:
        """One sequence number per sample, 0 for unknown."""
        return self.sequences or (0,) * len(self)

    def without(self, sequences: Collection[int]) -> Replay:
        """Leaves out the labels with these sequence numbers, which were taken back."""
        kept = [index for index, number in enumerate(self.numbers()) if not number or number not in sequences]
        return self if len(kept) == len(self) else self._rows(torch.tensor(kept, dtype=torch.long))

    def latest(self) -> Replay:
        """Keeps the newest label of each pair of sample and prompt: it replaces an earlier label of the same pair."""
        raw = self.samples.numpy()
        newest = {(raw[index].tobytes(), prompt): index for index, prompt in enumerate(self.asked())}
        return self if len(newest) == len(self) else self._rows(torch.tensor(sorted(newest.values())))

    def kept(self, config: UpdateConfig) -> Replay:
        """Keeps the newest labels, up to the configured numbers of likes and of dislikes."""
        liked = self.grades > 0
        newer_likes = liked.flip(0).cumsum(0).flip(0)
        newer_dislikes = (~liked).flip(0).cumsum(0).flip(0)
        keep = torch.where(liked, newer_likes <= config.replay_likes, newer_dislikes <= config.replay_dislikes)
        return self._rows(keep.nonzero()[:, 0])

    def _rows(self, indices: Tensor) -> Replay:
        prompts = tuple(self.asked()[index] for index in indices.tolist())
        parts = (self.samples[indices], self.grades[indices], self.features[indices])
        sequences = tuple(self.numbers()[index] for index in indices.tolist())
        return Replay(*parts, prompts if any(prompts) else (), sequences if any(sequences) else ())

    def x0(self) -> Tensor:
        """The samples as the backbone's x0, float32."""
        if self.samples.dtype == torch.uint8:
            return to_x0(self.samples)
        return self.samples.float()

    def of_this_taste(self, config: UpdateConfig, unrated: Unrated | None) -> Replay:
        """Keeps only the newest `change_window` labels if they show that the taste has changed.

        `unrated` is the backbone's pool.
        """
        window, share = config.change_window, config.change_share
        fit = (config.trust_ridge, config.neighbours)
        if not changed(self.features, self.grades, unrated, window, share, *fit):
            return self
        return self._rows(torch.arange(len(self) - window, len(self)))
