"""This product's update behind the service's promotion gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from papa_serving.settings import TrainerSettings
from papa_serving.trainer.gate import Gate
from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.ours import Ours
from papa.config import UpdateConfig
from papa.denoiser import Denoiser


class Gated(Ours):
    """Updates as the trainer does: an update that the gate refuses is tried again with half the step. After the number
    of attempts in the settings it is given up, and the adapter stays as it was."""

    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: UpdateConfig) -> None:
        super().__init__(denoiser, sampling, seed, config)
        self.settings = TrainerSettings()
        self.gate = Gate(denoiser, self.settings.gate, config)
        self.refused: list[str] = []

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        given = self.given(shown, grades)
        for attempt in range(self.settings.max_attempts):
            config = replace(self.config, learning_rate=self.config.learning_rate * 0.5**attempt)
            trained = self.updated(given, config, step)
            (verdict,) = self.gate.judge([trained])
            if verdict is None:
                self.adapter = trained[0]
                return
            self.refused.append(verdict.reason)

    def figures(self) -> dict[str, Any]:
        return {"refused": list(self.refused)}
