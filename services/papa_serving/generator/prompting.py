"""Encodes a generation's prompt once, before its first denoising step and outside the engine's thread."""

from __future__ import annotations

import asyncio

import torch

from papa.denoiser import Conditions, Denoiser, PromptRefused
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.contracts.generation import GenerationSpec


class Prompter:
    """Runs the text encoders in a worker thread; the denoiser caches recent prompts."""

    def __init__(self, denoiser: Denoiser, guidance: float) -> None:
        """`guidance` is for requests that name none."""
        self._denoiser = denoiser
        self.guidance = guidance

    async def conditions(self, spec: GenerationSpec) -> Conditions | None:
        """The condition that all rows share; None for a backbone without prompts.

        Raises InvalidRequest for a prompt that the backbone refuses.
        """
        if not self._denoiser.takes_prompt:
            return None
        try:
            return await asyncio.to_thread(self._encoded, spec)
        except PromptRefused as error:
            raise InvalidRequest([Violation("prompt", str(error))]) from error

    @torch.inference_mode()
    def _encoded(self, spec: GenerationSpec) -> Conditions | None:
        guidance = self.guidance if spec.guidance < 0 else spec.guidance
        return self._denoiser.conditions([spec.prompt], guidance, spec.negative_prompt)
