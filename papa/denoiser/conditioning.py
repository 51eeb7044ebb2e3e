"""How a prompt becomes tensors: the text encoders and classes of each pipeline, and the conditions of a batch's rows.

Symbols (classifier-free guidance, Ho & Salimans, arXiv 2207.12598): s = guidance scale, c = condition, ∅ = none;
ε = ε_θ(x, ∅) + s (ε_θ(x, c) − ε_θ(x, ∅)), which at s = 1 is ε_θ(x, c) alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Parts = Mapping[str, Tensor]
"""A model's own inputs by name, each [n, ...]."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """One condition per row. Rows with different prompts and guidance scales can share a batch.

    Shape: `asked` holds c and `against` ∅ (or the negative prompt), by the model's own names, each [n, ...];
    `guidance` is s, [n] float32, on the host, where the rows to run twice are chosen without waiting for the device.
    """

    asked: Parts
    against: Parts
    guidance: Tensor

    def __len__(self) -> int:
        return len(self.guidance)

    @classmethod
    def concat(cls, parts: Sequence[Conditions]) -> Conditions:
        """One batch of all rows, in order."""
        asked, against = (
            {name: torch.cat([getattr(part, side)[name] for part in parts]) for name in getattr(parts[0], side)}
            for side in ("asked", "against")
        )
        return cls(asked, against, torch.cat([part.guidance for part in parts]))

    def select(self, index: Tensor) -> Conditions:
        """The rows `index` [m] int64 (on the host), in that order."""
        sides = (self.asked, self.against)
        asked, against = (
            {name: part.index_select(0, index.to(part.device)) for name, part in side.items()} for side in sides
        )
        return Conditions(asked, against, self.guidance.index_select(0, index))

    def repeat(self, count: int) -> Conditions:
        """Repeats a single condition for `count` rows."""
        return self.select(torch.zeros(count, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class Guided:
    """A batch of n rows as the model runs it: each guided row a second time, against its negative prompt.

    Rows with an adapter come first there as well, because the adapters belong to the first rows of a batch: the
    `adapted` ones, their copies, then the others and theirs. `source` [n + g] is the row of the batch for a row itself
    and n + row for its copy.
    """

    rows: int
    adapted: int
    source: Tensor
    guided: Tensor
    scale: Tensor

    @classmethod
    def of(cls, conditions: Conditions, adapted: int, device: torch.device) -> Guided | None:
        """The guided batch; None if every row has s = 1."""
        n = len(conditions)
        guided = (conditions.guidance != 1).nonzero()[:, 0].tolist()
        if not guided:
            return None
        first = [*range(adapted), *(n + row for row in guided if row < adapted)]
        rest = [*range(adapted, n), *(n + row for row in guided if row >= adapted)]
        scale = conditions.guidance[guided].to(device)
        return cls(n, adapted, torch.tensor(first + rest, device=device), torch.tensor(guided, device=device), scale)

    def spread(self, tensor: Tensor) -> Tensor:
        """Copies each row to all its positions. Shape: [n, ...] → [n + g, ...]."""
        return tensor.index_select(0, self.source % self.rows)

    def spread_adapters(self, adapters: Tensor) -> Tensor:
        """Shape: [m, P] → [m + guided rows among the first m, P]."""
        copies = int((self.guided < self.adapted).sum())
        return adapters.index_select(0, self.source[: self.adapted + copies] % self.rows)

    def parts(self, conditions: Conditions) -> Parts:
        """c for a row, ∅ for its copy. Shape: [n + g, ...] each."""
        return {
            name: torch.cat([part, conditions.against[name]]).index_select(0, self.source)
            for name, part in conditions.asked.items()
        }

    def joined(self, output: Tensor) -> Tensor:
        """ε_∅ + s (ε_c − ε_∅). Shape: [n + g, ...] → [n, ...]."""
        order = self.source.argsort()
        asked = output.index_select(0, order[: self.rows])
        against = output.index_select(0, order[self.rows :])
        own = asked.index_select(0, self.guided)
        scale = self.scale.to(output.dtype).view(-1, *[1] * (output.ndim - 1))
        return asked.index_copy(0, self.guided, against + scale * (own - against))


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


@dataclass(frozen=True, eq=False)
class TokenEncoder:
    """A tokenizer and a text model that gives hidden states; prompts are padded and cut to `length` tokens.

    `masked`: the model does not attend to the padding. `layer` is the layer whose states are taken, None the result.
    """

    tokenizer: Any
    model: nn.Module
    length: int
    masked: bool = True
    layer: int | None = None

    @torch.no_grad()
    def __call__(self, prompt: str, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Shape: hidden states [1, L, D] and their mask [1, L] int64, 0 for padding."""
        tokens = self.tokenizer(
            prompt, padding="max_length", max_length=length or self.length, truncation=True, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        mask = tokens.attention_mask.to(device)
        given = {"attention_mask": mask} if self.masked else {}
        wanted = {"output_hidden_states": True} if self.layer is not None else {}
        output = self.model(tokens.input_ids.to(device), **given, **wanted)
        return (output[0] if self.layer is None else output.hidden_states[self.layer]), mask


class StableDiffusion3Conditioner(Conditioner):
    """Two CLIP encoders side by side, then T5's tokens behind them; zeros for an encoder that is absent.

    `widths` are those of the CLIP encoders, `size` is that of the transformer's tokens.
    """

    def __init__(
        self, clips: Sequence[ClipEncoder | None], t5: TokenEncoder | None, widths: Sequence[int], size: int,
        clip_length: int, t5_length: int,
    ) -> None:  # fmt: skip
        self._clips, self._t5, self._widths, self._size = clips, t5, widths, size
        self._clip_length, self._t5_length = clip_length, t5_length
        self.modules = tuple(encoder.model for encoder in (*clips, t5) if encoder is not None)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L1 + L2, D], pooled_projections [1, E1 + E2]."""
        tokens, pooled = [], []
        for encoder, width in zip(self._clips, self._widths, strict=True):
            output = None if encoder is None else encoder(prompt, hidden=True)
            tokens.append(torch.zeros(1, self._clip_length, width) if output is None else output.hidden_states[-2])
            pooled.append(torch.zeros(1, width) if output is None else output[0])
        clip = _together(tokens)
        clip = F.pad(clip, (0, self._size - clip.shape[-1]))
        t5 = torch.zeros(1, self._t5_length, self._size) if self._t5 is None else self._t5(prompt)[0]
        return {"encoder_hidden_states": _together([clip, t5], dim=1), "pooled_projections": _together(pooled)}


class FluxConditioner(Conditioner):
    """CLIP's pooled output and T5's tokens. FLUX.1-dev is told the guidance scale, FLUX.1-schnell knows none."""

    def __init__(self, clip: ClipEncoder, t5: TokenEncoder, guided: bool) -> None:
        self._clip, self._t5 = clip, t5
        self.guidance: Guidance = "told" if guided else "none"
        self.modules = (clip.model, t5.model)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D], pooled_projections [1, E]."""
        return {"encoder_hidden_states": self._t5(prompt)[0], "pooled_projections": self._clip(prompt).pooler_output}


class PixArtConditioner(Conditioner):
    """T5's tokens and their mask, and for pictures of 1024 × 1024 their size and aspect ratio (PixArt-α)."""

    def __init__(self, t5: TokenEncoder, size: tuple[int, int] | None) -> None:
        self._t5, self._size = t5, size
        self.modules = (t5.model,)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D], encoder_attention_mask [1, L]; resolution [1, 2], aspect_ratio
        [1, 1]."""
        tokens, mask = self._t5(_plain(prompt))
        parts = {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}
        if self._size is None:
            return parts
        height, width = self._size
        sizes = {"resolution": tokens.new_tensor([self._size]), "aspect_ratio": tokens.new_tensor([[height / width]])}
        return parts | sizes


class SanaConditioner(Conditioner):
    """Gemma's states of an instruction with the prompt behind it: of the first token and of the last L − 1.

    The condition ∅ and negative prompts come without the instruction.
    """

    def __init__(self, gemma: TokenEncoder, instruction: str) -> None:
        self._gemma, self._instruction = gemma, instruction
        self._told = len(gemma.tokenizer.encode(instruction))
        self.modules = (gemma.model,)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D], encoder_attention_mask [1, L]."""
        length = self._gemma.length
        tokens, mask = self._gemma(self._instruction + _plain(prompt), self._told + length - 2)
        chosen = torch.tensor([0, *range(tokens.shape[1] - length + 1, tokens.shape[1])], device=tokens.device)
        return {"encoder_hidden_states": tokens[:, chosen], "encoder_attention_mask": mask[:, chosen]}

    def against(self, prompt: str) -> Parts:
        """Without the instruction."""
        tokens, mask = self._gemma(_plain(prompt))
        return {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}


class ZImageConditioner(Conditioner):
    """The last but one layer of Qwen 3, for the prompt as a user's message."""

    def __init__(self, qwen: TokenEncoder) -> None:
        self._qwen = qwen
        self.modules = (qwen.model,)

    def parts(self, prompt: str) -> Parts:
        """Shape: encoder_hidden_states [1, L, D], attention_mask [1, L]."""
        message = [{"role": "user", "content": prompt}]
        told = self._qwen.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        tokens, mask = self._qwen(told)
        return {"encoder_hidden_states": tokens, "attention_mask": mask}


def _plain(prompt: str) -> str:
    return prompt.lower().strip()


def _together(parts: Sequence[Tensor], dim: int = -1) -> Tensor:
    """Concatenated, on the device of those that an encoder made."""
    made = next((part for part in parts if part.device.type != "cpu"), parts[0])
    return torch.cat([part.to(made.device) for part in parts], dim=dim)
