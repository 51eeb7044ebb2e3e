"""A frozen backbone behind one signature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papa.denoiser.conditioning import Conditioner, Conditions, Guided, Parts
from papa.denoiser.identity import backbone_hash, weights_hash
from papa.denoiser.latents import LatentSpace
from papa.denoiser.networks import Network, unconditional
from papa.lora import AdapterLayout, LoraConfig, SlotLora
from papa.pixels import to_x0
from papa.pool import Pool, StoredPool
from papa.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]

FEATURE_TIMESTEP = 200
"""The timestep (of a DDPM, see NoiseSchedule.level) at which `features` reads the mid-block: little enough noise for
details, enough for semantics."""
FEATURE_GRID = 2
"""Rows and columns over which a U-Net's features are averaged, so that they tell what is where."""

PROMPTS_KEPT = 256
"""Encoded prompts that are remembered (77 tokens of 768 numbers in half precision are 118 kB)."""


class Denoiser:
    """A frozen backbone with room for one adapter, and one condition, per row.

    `sample_shape` is [channels, height, width] of x, `image_shape` that of the pictures (the same unless x are
    latents). `backbone_hash` identifies the weights and all else that the picture depends on, which `description`
    tells: adapters of one backbone are never applied to another. `weights_hash` is its former kind. `autocast` is the
    type in which products and convolutions are computed while weights, normalisation and results stay as they are;
    None leaves all as it is. `unrated` is its pool. `vocabulary` has the words of its prompts
    and what else is read as one of them; none where any text is read.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        sample_shape: tuple[int, int, int],
        prediction: Prediction,
        lora: LoraConfig,
        autocast: torch.dtype | None = None,
        network: Network = unconditional,
        conditioner: Conditioner | None = None,
        latents: LatentSpace | None = None,
        unrated: StoredPool | None = None,
        description: Mapping[str, Any] | None = None,
        vocabulary: tuple[tuple[str, ...], Mapping[str, str]] = ((), {}),
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.schedule = schedule
        self.sample_shape = sample_shape
        self.prediction = prediction
        self.autocast = autocast
        self.vocabulary = vocabulary
        self._network, self._conditioner, self._latents = network, conditioner, latents
        self._unrated = unrated
        self.weights_hash = weights_hash(model, schedule, prediction, self._companions())
        self.backbone_hash = backbone_hash(self.weights_hash, description or {})
        self._lora = SlotLora(model, lora)
        self._known: OrderedDict[tuple[str, bool], Parts] = OrderedDict()
        self._lock = Lock()

    @property
    def hashes(self) -> tuple[str, str]:
        """The hashes by which the manifest of a revision may name this backbone: the present kind and the former.

        A store names its backbone by the present kind; a former one in a manifest is of the time before it was renamed
        (`papa store rehash`).
        """
        return self.backbone_hash, self.weights_hash

    @property
    def layout(self) -> AdapterLayout:
        """The layout of this deployment's adapters."""
        return self._lora.layout

    @property
    def device(self) -> torch.device:
        """The device that holds the backbone."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's floating-point type."""
        return next(self.model.parameters()).dtype

    @property
    def takes_prompt(self) -> bool:
        """Whether the backbone can be conditioned on a prompt."""
        return self._conditioner is not None

    @property
    def clips(self) -> bool:
        """Whether samplers clip x0 to [−1, 1]: true for pixels, false for latents."""
        return self._latents is None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[channels, height, width] of the pictures that `decode` gives."""
        if self._latents is None:
            return self.sample_shape
        _, height, width = self.sample_shape
        return self._latents.image_channels, height * self._latents.factor, width * self._latents.factor

    @property
    def sample_dtype(self) -> torch.dtype:
        """The type in which an x0 is stored: uint8 for pixels (0…255), float16 for latents."""
        return torch.uint8 if self._latents is None else torch.float16

    def to(self, device: str, dtype: torch.dtype) -> Denoiser:
        """Moves and converts everything in place. What overflows in float16 stays in float32: a VAE that says so, and
        the layers that a text encoder names (T5's `wo`, whose infinities transformers would clamp to wrong numbers)."""
        for module in (self.model, *self._companions()):
            nn.Module.to(module, device=device, dtype=dtype)
            if dtype == torch.float16:
                _keep_in_float32(module)
        if self._latents is not None and self._latents.full_precision:
            nn.Module.to(self._latents.vae, dtype=torch.float32)
        return self

    def conditions(
        self, prompts: Sequence[str], guidance: float | Sequence[float] = 1.0, negative: str = ""
    ) -> Conditions | None:
        """The conditions of rows with these prompts; None for a backbone without prompts.

        `guidance` is s, one value or one per row. A row without a prompt is not guided. A network that takes s itself
        is told it, with a prompt or without. May be called from any thread. Encoded prompts are cached. Raises
        PromptRefused.
        """
        if self._conditioner is None:
            return None
        scales = [guidance] * len(prompts) if isinstance(guidance, int | float) else list(guidance)
        if self._conditioner.guidance == "free":
            against = self._parts(negative, against=True)
            rows = [
                Conditions(self._parts(prompt), against, torch.tensor([scale if prompt else 1.0]))
                for prompt, scale in zip(prompts, scales, strict=True)
            ]
        else:
            rows = [self._told(self._parts(prompt), scale) for prompt, scale in zip(prompts, scales, strict=True)]
        return Conditions.concat(rows)

    def _told(self, parts: Parts, scale: float) -> Conditions:
        """One row of a network without classifier-free guidance."""
        assert self._conditioner is not None
        if self._conditioner.guidance == "told":
            parts = {**parts, "guidance": torch.tensor([scale], device=self.device)}
        return Conditions(parts, parts, torch.ones(1))

    def epsilon(
        self, x: Tensor, t: Tensor, adapters: Tensor | None = None, conditions: Conditions | None = None
    ) -> Tensor:
        """ε_θ(x_t, t, c) per row. Shape: x [n, C, H, W]; t [n]; adapters [m, P], m ≤ n; conditions of n rows, or
        None for no prompt; result like x.

        Row i < m runs with adapter i, the others with the backbone alone. Differentiable in `adapters` and x. The
        result is in double precision where the schedule ends in pure noise: from ε in float32 no x0 would follow.
        """
        if conditions is None and (empty := self.conditions([""])) is not None:
            conditions = empty.repeat(len(x))
        inputs, times = x.to(self.dtype), self.schedule.told(t)
        parts = {} if conditions is None else conditions.asked
        weights = None if adapters is None else adapters.to(self.autocast or self.dtype)
        guided = None
        if conditions is not None:
            guided = Guided.of(conditions, 0 if weights is None else len(weights), x.device)
        if guided is not None and conditions is not None:
            inputs, times, parts = guided.spread(inputs), guided.spread(times), guided.parts(conditions)
            weights = None if weights is None else guided.spread_adapters(weights)
        with (
            self._lora.rows(weights),
            torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None),
        ):
            output = self._network(self.model, inputs, times, parts).to(x.dtype)
        return self._to_epsilon(output if guided is None else guided.joined(output), x, t)

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures. Shape: [n, *sample_shape] → [n, *image_shape] float32 in [−1, 1]. May be called from any thread."""
        return x0.float().clamp(-1, 1) if self._latents is None else self._latents.decode(x0)

    def encode(self, pictures: Tensor) -> Tensor:
        """The x0 of pictures in [−1, 1]. Shape: [n, *image_shape] → [n, *sample_shape] float32."""
        return pictures if self._latents is None else self._latents.encode(pictures)

    @property
    def feature_size(self) -> int:
        """F, the length of `features`."""
        return int(self.features(torch.zeros(1, *self.sample_shape, device=self.device)).shape[1])

    @property
    def unrated(self) -> StoredPool | None:
        """The samples that came with the backbone, without their features."""
        return self._unrated

    @cached_property
    def pool(self) -> Pool | None:
        """The samples that came with the backbone, and their features. The first call runs the backbone over them."""
        if self._unrated is None:
            return None
        x0 = to_x0(self._unrated.samples)
        features = [self.features(chunk.to(self.device)).cpu() for chunk in x0.split(64)]
        return Pool(x0, torch.cat(features).to(torch.float16), self._unrated.first_seed)

    @torch.no_grad()
    def features(self, x0: Tensor) -> Tensor:
        """Features of samples from the backbone's mid-block at a low noise level.

        A U-Net's activations are averaged over quarters of the picture, a transformer's over all positions.

        Shape: x0 [n, C, H, W] → [n, F] float32.
        """
        seen: list[Tensor] = []

        def stop(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor | None, ...]) -> None:
            seen.append(_states(output))
            raise _FeaturesReached

        handle = self._middle().register_forward_hook(stop)
        try:
            t = torch.full((len(x0),), self.schedule.level(FEATURE_TIMESTEP), device=x0.device)
            with suppress(_FeaturesReached):  # the blocks behind are more than half of the work
                self.epsilon(self.schedule.alpha(t, x0) * x0, t)
        finally:
            handle.remove()
        # A U-Net's is [n, F, h, w], a transformer's [n, tokens, F].
        found = seen[0].float()
        return found.mean(dim=1) if found.ndim == 3 else F.adaptive_avg_pool2d(found, FEATURE_GRID).flatten(1)

    def _middle(self) -> nn.Module:
        """A U-Net's middle, or its lowest block down where it has none (distilled ones); a transformer's middle
        block."""
        blocks = getattr(self.model, "transformer_blocks", getattr(self.model, "layers", None))
        if blocks is not None:
            return cast("nn.Module", blocks[len(blocks) // 2])
        middle = getattr(self.model, "mid_block", None)
        return cast(
            "nn.Module",
            cast("nn.ModuleList", self.model.get_submodule("down_blocks"))[-1] if middle is None else middle,
        )

    def _companions(self) -> list[nn.Module]:
        found = list(self._conditioner.modules) if self._conditioner is not None else []
        return found + ([self._latents.vae] if self._latents is not None else [])

    def _parts(self, prompt: str, against: bool = False) -> Parts:
        """Encodes a prompt, or a negative one, in the backbone's type and on its device."""
        assert self._conditioner is not None
        conditioner, key = self._conditioner, (prompt, against)
        # What is remembered may serve an update as well, which inference mode's tensors cannot.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if key not in self._known:
                if against:
                    parts = conditioner.against(prompt) if prompt else conditioner.absent()
                else:
                    parts = conditioner.parts(prompt)
                self._known[key] = {
                    name: part.to(self.device, self.dtype if part.is_floating_point() else part.dtype)
                    for name, part in parts.items()
                }
                if len(self._known) > PROMPTS_KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def _to_epsilon(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """ε from ε, from v = α ε − σ x0 of preserved variance, from x0, or from v = ε − x0 of rectified flow."""
        if self.prediction == "epsilon":
            return output
        if self.schedule.zero_terminal_snr:
            output, x = output.double(), x.double()
        alpha, sigma = self.schedule.alpha(t, x), self.schedule.sigma(t, x)
        if self.prediction == "flow_prediction":
            return x + alpha * output
        if self.prediction == "v_prediction":
            return alpha * output + sigma * x
        return (x - alpha * output) / sigma


class _FeaturesReached(Exception):
    """Ends a pass of the backbone once its features are known."""


def _keep_in_float32(module: nn.Module) -> None:
    """Turns back the layers that transformers names for it."""
    named = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, layer in module.named_modules():
        if name.rpartition(".")[2] in named:
            nn.Module.to(layer, dtype=torch.float32)


def _states(output: Tensor | tuple[Tensor | None, ...]) -> Tensor:
    """The states of the picture in a block's output.

    A down block of a U-Net returns its states [n, F, h, w] first, then the skip connections. A transformer block
    returns the tokens of the text [n, tokens, F] first, if any, then those of the picture.
    """
    if isinstance(output, Tensor):
        return output
    first, last = output[0], output[-1]
    found = first if first is not None and first.ndim == 4 else last
    assert found is not None
    return found
