"""Converts prompts to model inputs: CLIP text encoders as in diffusers' pipelines, and classes by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from papa.denoiser.conditions import Parts

Guidance = Literal["free", "told", "none"]
"""What a guidance scale s does: classifier-free guidance, an input of the network itself (FLUX.1-dev), or nothing."""


class PromptRefused(ValueError):
    """The backbone cannot show what the prompt asks for; the message says what it can."""


class Conditioner(ABC):
    """Converts prompts to model inputs. `modules` are its networks, which are part of the backbone's hash."""

    modules: tuple[nn.Module, ...] = ()
    guidance: Guidance = "free"

    @abstractmethod
    def parts(self, prompt: str) -> Parts:
        """The model inputs for one prompt ("" means none), each [1, ...]. Raises PromptRefused."""

    def absent(self) -> Parts:
        """The condition ∅ that is used when no negative prompt is given."""
        return self.against("")

    def against(self, prompt: str) -> Parts:
        """The model inputs for a negative prompt."""
        return self.parts(prompt)


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A tokenizer and its text model (both of transformers); prompts are padded and cut to `length` tokens."""

    tokenizer: Any
    model: nn.Module
    length: int

    @property
    def pooled(self) -> int:
        """The width of the pooled embedding of a model with projection."""
        config: Any = self.model.config
        return int(config.projection_dim)

    @torch.no_grad()
    def __call__(self, prompt: str, hidden: bool = False) -> Any:
        """The text model's output."""
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        device = next(self.model.parameters()).device
        masked = getattr(self.model.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        return self.model(tokens.input_ids.to(device), attention_mask=mask, output_hidden_states=hidden)


class TextConditioner(Conditioner):
    """Stable Diffusion 1.x and 2.x: the last hidden state of one text encoder."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self._encoder = encoder
        self.modules = (encoder.model,)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D]."""
        return {"encoder_hidden_states": self._encoder(prompt)[0]}


class SdxlConditioner(Conditioner):
    """Stable Diffusion XL (arXiv 2307.01952): the last but one hidden states of two encoders side by side, the second
    one's pooled embedding, and the size of the picture (original, crop, target) as numbers."""

    def __init__(self, first: ClipEncoder, second: ClipEncoder, size: tuple[int, int], zeros_for_empty: bool) -> None:
        self._encoders = (first, second)
        self._size = size
        self._zeros_for_empty = zeros_for_empty
        self.modules = (first.model, second.model)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D1 + D2], text_embeds [1, E], time_ids [1, 6]."""
        outputs = [encoder(prompt, hidden=True) for encoder in self._encoders]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled: Tensor = outputs[-1][0]
        sizes = torch.tensor([[*self._size, 0, 0, *self._size]], dtype=pooled.dtype, device=pooled.device)
        return {"encoder_hidden_states": tokens, "text_embeds": pooled, "time_ids": sizes}

    def absent(self) -> Parts:
        """Zeros, if the pipeline was trained that way."""
        empty = self.parts("")
        if not self._zeros_for_empty:
            return empty
        return {name: part if name == "time_ids" else torch.zeros_like(part) for name, part in empty.items()}


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
