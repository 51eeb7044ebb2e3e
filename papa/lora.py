"""LoRA for many users in one forward pass.

An adapter is one flat vector. Its layout says which slice of it is A and which B of each adapted layer, so that the
adapters of a whole batch are gathered by a single `index_select` into `weights` [m, P] and every layer reads its
slice as a view; nothing loops over adapters and nothing is merged into the backbone's weights.

Symbols (LoRA, Hu et al., arXiv 2106.09685): r = rank, s = alpha / r, ΔW = s · B A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Delta = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class LoraConfig:
    """Which layers are adapted, and how finely. One per deployment; adapters of a lower rank are padded."""

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
    """Suffixes of module names, matched on whole name parts."""
    widest: bool = True
    """Of the convolutions, adapt only those with the most output channels: a U-Net's lowest resolution, where meaning
    is made. All of them cost half as much again per training step and teach no better (experiment "lora")."""
    frozen_a: bool = True
    """A keeps its random start and only B learns (LoRA-FA, Zhang et al., arXiv 2308.03303): the adapter is linear in
    what is learnt, steps are less noisy, and coverage stays far higher (experiment "lora")."""

    @property
    def scale(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class LayerSlice:
    """One adapted layer's place in the flat vector: A, then B.

    Shape: Linear has A [r, in], B [out, r]; Conv2d has A [r, in, kh, kw] and B [out, r] (a 1×1 convolution).
    """

    name: str
    kind: Literal["linear", "conv"]
    a_shape: tuple[int, ...]
    b_shape: tuple[int, int]
    offset: int

    @property
    def a_size(self) -> int:
        """Elements of A."""
        return math.prod(self.a_shape)

    @property
    def end(self) -> int:
        """One past the last element of B."""
        return self.offset + self.a_size + self.b_size

    @property
    def b_size(self) -> int:
        """Elements of B."""
        return math.prod(self.b_shape)

    def a(self, weights: Tensor) -> Tensor:
        """A of each row, a view. Shape: weights [m, P] → [m, *a_shape]."""
        return weights[:, self.offset : self.offset + self.a_size].view(-1, *self.a_shape)

    def b(self, weights: Tensor) -> Tensor:
        """B of each row, a view. Shape: weights [m, P] → [m, out, r]."""
        return weights[:, self.offset + self.a_size : self.end].view(-1, *self.b_shape)


@dataclass(frozen=True)
class AdapterLayout:
    """The layout of every adapter of a deployment."""

    config: LoraConfig
    layers: tuple[LayerSlice, ...]

    @property
    def size(self) -> int:
        """P, the number of parameters of one adapter."""
        return self.layers[-1].end

    def parts(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(A, B) of every layer, in order, as views.

        One split for all of them: its backward pass is one concatenation, where that of a slice per layer would
        fill and add a whole [m, P] each time. Shape: weights [m, P] → [m, *a_shape], [m, out, r] per layer.
        """
        sizes = [size for layer in self.layers for size in (layer.a_size, layer.b_size)]
        flat = weights.split(sizes, dim=1)
        pairs = zip(self.layers, flat[::2], flat[1::2], strict=True)
        return [(a.unflatten(1, layer.a_shape), b.unflatten(1, layer.b_shape)) for layer, a, b in pairs]

    def learnt(self) -> Tensor:
        """1 where an element learns, 0 where it is frozen. Shape: [P] float32."""
        parts = [
            (torch.full((layer.a_size,), 0.0 if self.config.frozen_a else 1.0), torch.ones(layer.b_size))
            for layer in self.layers
        ]
        return torch.cat([each for pair in parts for each in pair])

    def initial(self, generator: torch.Generator) -> Tensor:
        """A fresh adapter: A ~ U(−1/√fan_in, 1/√fan_in) as in peft, B = 0, hence ΔW = 0. Shape: [P]."""
        flat = torch.zeros(1, self.size)
        for layer in self.layers:
            bound = 1 / math.sqrt(math.prod(layer.a_shape[1:]))
            layer.a(flat).copy_(torch.empty(1, *layer.a_shape).uniform_(-bound, bound, generator=generator))
        return flat[0]


class SlotLora:
    """Attaches LoRA to the layers of a frozen model; the weights are given per call by `rows`."""

    def __init__(self, model: nn.Module, config: LoraConfig) -> None:
        """Raises ValueError when a target matches nothing that can be adapted."""
        self.layout = AdapterLayout(config, tuple(_slices(model, config)))
        self._parts: list[tuple[Tensor, Tensor]] | None = None
        modules = dict(model.named_modules())
        for index, layer in enumerate(self.layout.layers):
            delta = _linear_delta if layer.kind == "linear" else _conv_delta
            modules[layer.name].register_forward_hook(self._hook(index, delta))

    @contextmanager
    def rows(self, weights: Tensor | None) -> Iterator[None]:
        """Within the block, row i of every batch runs with adapter `weights[i]`; rows from m on run without one.

        Shape: weights [m, P] with m ≤ the batch; None is m = 0.
        """
        self._parts = self._split(weights) if weights is not None and len(weights) else None
        try:
            yield
        finally:
            self._parts = None

    def _split(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = self.layout.parts(weights)
        return [(a.detach(), b) for a, b in parts] if self.layout.config.frozen_a else parts

    def _hook(self, index: int, delta: _Delta) -> _Hook:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._parts is None:
                return output
            a, b = self._parts[index]
            adapted = len(a)
            change = delta(module, inputs[0][:adapted], a, b) * self.layout.config.scale
            if adapted == len(output):
                return output + change
            return torch.cat([output[:adapted] + change, output[adapted:]])

        return add


def _linear_delta(module: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """B_i (A_i x_i) for every row i. Shape: x [m, ..., in], a [m, r, in], b [m, out, r] → [m, ..., out]."""
    tokens = x.reshape(len(x), -1, x.shape[-1])
    return torch.bmm(torch.bmm(tokens, a.transpose(1, 2)), b.transpose(1, 2)).view(*x.shape[:-1], b.shape[1])


def _conv_delta(module: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """B_i ∗ (A_i ∗ x_i) for every row i.

    Shape: x [m, in, h, w], a [m, r, in, kh, kw], b [m, out, r] → [m, out, h', w'].
    """
    assert isinstance(module, nn.Conv2d)
    kernel, padding = module.kernel_size, module.padding
    same = all(2 * pad == size - 1 for pad, size in zip(padding, kernel, strict=True) if isinstance(pad, int))
    plain = module.stride == (1, 1) and module.dilation == (1, 1) and same
    low = _same_conv(x, a) if plain else _grouped_conv(module, x, a)
    return torch.bmm(b, low.flatten(2)).view(len(x), -1, *low.shape[-2:])


def _same_conv(x: Tensor, a: Tensor) -> Tensor:
    """A_i ∗ x_i at stride 1: a product per kernel tap, then the taps shifted and added (`fold`).

    Several times faster than a grouped convolution in the backward pass, since r is far smaller than `in`.
    """
    rank, (height, width) = a.shape[1], a.shape[-2:]
    taps = a.flip(3, 4).permute(0, 1, 3, 4, 2).flatten(1, 3)
    padding = (height // 2, width // 2)
    folded = F.fold(torch.bmm(taps, x.flatten(2)), x.shape[-2:], (height, width), padding=padding)
    return folded.view(len(x), rank, *x.shape[-2:])


def _grouped_conv(module: nn.Conv2d, x: Tensor, a: Tensor) -> Tensor:
    """A_i ∗ x_i for any stride: one convolution with a group per row."""
    rows, channels, height, width = x.shape
    low = F.conv2d(
        x.reshape(1, rows * channels, height, width),
        a.flatten(0, 1),
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=rows,
    )
    return low.view(rows, a.shape[1], *low.shape[-2:])


def _slices(model: nn.Module, config: LoraConfig) -> Iterator[LayerSlice]:
    offset, unmatched = 0, set(config.targets)
    matched = list(_matched(model, config))
    widest = max((module.out_channels for _, _, module in matched if isinstance(module, nn.Conv2d)), default=0)
    for name, target, module in matched:
        unmatched.discard(target)
        if config.widest and isinstance(module, nn.Conv2d) and module.out_channels < widest:
            continue
        layer = _slice(name, module, config.rank, offset)
        offset = layer.end
        yield layer
    if unmatched:
        raise ValueError(f"LoRA targets that match no Linear or Conv2d of the backbone: {sorted(unmatched)}")


def _matched(model: nn.Module, config: LoraConfig) -> Iterator[tuple[str, str, nn.Linear | nn.Conv2d]]:
    for name, module in model.named_modules():
        target = next((t for t in config.targets if name == t or name.endswith("." + t)), None)
        if target is not None and isinstance(module, nn.Linear | nn.Conv2d):
            yield name, target, module


def _slice(name: str, module: nn.Linear | nn.Conv2d, rank: int, offset: int) -> LayerSlice:
    if isinstance(module, nn.Linear):
        return LayerSlice(name, "linear", (rank, module.in_features), (module.out_features, rank), offset)
    if module.groups != 1:
        raise ValueError(f"{name}: a grouped convolution cannot be adapted")
    shape = (rank, module.in_channels, module.kernel_size[0], module.kernel_size[1])
    return LayerSlice(name, "conv", shape, (module.out_channels, rank), offset)
