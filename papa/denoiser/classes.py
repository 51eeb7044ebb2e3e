"""Classes by name, for backbones that were trained on labels (DiT, arXiv 2212.09748)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from papa.denoiser.conditions import Conditioner, Parts, PromptRefused


class ClassConditioner(Conditioner):
    """A prompt is the name of a class or its number; no prompt is the null class."""

    def __init__(self, names: Mapping[str, str], classes: int) -> None:
        """`names` is the pipeline's id2label: number to names, separated by commas."""
        self._classes = classes
        self._ids = {name.strip().casefold(): int(number) for number, line in names.items() for name in line.split(",")}

    def parts(self, prompt: str) -> Parts:
        """Shape: class_labels [1] int64."""
        wanted = prompt.strip().casefold()
        if not wanted:
            return {"class_labels": torch.tensor([self._classes])}
        if wanted in self._ids:
            return {"class_labels": torch.tensor([self._ids[wanted]])}
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 and int(wanted) < self._classes:
            return {"class_labels": torch.tensor([int(wanted)])}
        raise PromptRefused(f"must be the name of one of the backbone's {self._classes} classes, or its number")
