"""Prompts of the text transformers: T5, Gemma and Qwen encoders beside CLIP's, as in diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papa.denoiser.conditioners import ClipEncoder, Conditioner, Guidance
from papa.denoiser.conditions import Parts


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
