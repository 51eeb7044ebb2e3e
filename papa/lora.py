"""LoRA for many users in one forward pass.

An adapter is one flat vector. Its layout says which slice holds A and which holds B of each adapted layer. The adapters
of a whole batch are gathered by a single `index_select` into `weights` [m, P], and every layer reads its slice as a
view. Nothing loops over adapters, and nothing is merged into the backbone's weights.

A frozen A is shared by all users and is not part of the vector. A x is then one ordinary product or convolution for the
whole batch, and only the small B differ from row to row.

Symbols (LoRA, Hu et al., arXiv 2106.09685): r = rank, s = alpha / r, ΔW = s · B A.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papa.noise import Domain, Noise

_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class LoraConfig:
    """Names the adapted layers and the rank. One per deployment; adapters of a lower rank are padded."""

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
    """Suffixes of module names, matched on whole name parts; * stands for anything."""
    widest: bool = True
    """Adapt only the convolutions with the most output channels, which are a U-Net's lowest resolution. Adapting all
    convolutions makes a training step half as long again and does not learn better (experiment "lora")."""
    frozen_a: bool = True
    """A is fixed and shared by all users; only B is learnt (LoRA-FA, Zhang et al., arXiv 2308.03303). ΔW is then linear
    in the learnt weights, and an adapter is several times smaller. Learning A as well, at a fifth of the rate, gains a
    little in the first ten interaction steps (experiment "both-learn")."""

    @property
    def scale(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class LayerSlice:
    """The position of one adapted layer in the flat vector: A, unless it is frozen, then B.

    Shape: Linear has A [r, in] and B [out, r]; Conv2d has A [r, in, kh, kw] and B [out, r] (a 1×1 convolution).
    """

    name: str
    kind: Literal["linear", "conv"]
    a_shape: tuple[int, ...]
    b_shape: tuple[int, int]
    offset: int
    frozen: bool

    @property
    def a_size(self) -> int:
        """Elements of A in the vector."""
        return 0 if self.frozen else math.prod(self.a_shape)

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
        if self.frozen:
            return self.frozen_a().to(weights).expand(len(weights), *self.a_shape)
        return weights[:, self.offset : self.offset + self.a_size].view(-1, *self.a_shape)

    def b(self, weights: Tensor) -> Tensor:
        """B of each row, a view. Shape: weights [m, P] → [m, out, r]."""
        return weights[:, self.offset + self.a_size : self.end].view(-1, *self.b_shape)

    def frozen_a(self) -> Tensor:
        """The frozen A for a layer of this name and input size: U(−1/√fan_in, 1/√fan_in), as in peft.

        It is derived from a hash, so it never changes with the version of a random generator. The A of a lower rank is
        the first rows of the A of a higher rank.
        Shape: a_shape, float32; not to be written to.
        """
        return _frozen_a(self.name, self.a_shape)


@cache
def _frozen_a(name: str, shape: tuple[int, ...]) -> Tensor:
    """Cached, because every adapter that is loaded is compared with it."""
    per_row = math.prod(shape[1:])
    drawn = [hashlib.shake_128(f"{name}/{row}".encode()).digest(4 * per_row) for row in range(shape[0])]
    uniform = np.frombuffer(b"".join(drawn), "<u4") / 2**32
    return torch.from_numpy(((2 * uniform - 1) / math.sqrt(per_row)).astype(np.float32)).view(shape)


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
        """Views of (A, B) for every layer, in order; a frozen A is empty.

        All layers share one split. Its backward pass is one concatenation, while a slice per layer would fill and add
        a whole [m, P] for each. Shape: weights [m, P] → [m, *a_shape] or [m, 0], and [m, out, r].
        """
        sizes = [size for layer in self.layers for size in (layer.a_size, layer.b_size)]
        flat = weights.split(sizes, dim=1)
        pairs = zip(self.layers, flat[::2], flat[1::2], strict=True)
        return [
            (a if layer.frozen else a.unflatten(1, layer.a_shape), b.unflatten(1, layer.b_shape))
            for layer, a, b in pairs
        ]

    def initial(self, noise: Noise) -> Tensor:
        """A fresh adapter: A ~ U(−1/√fan_in, 1/√fan_in) as in peft, unless frozen; B = 0, hence ΔW = 0. Shape: [P]."""
        flat = torch.zeros(1, self.size)
        for layer in self.layers:
            if not layer.frozen:
                bound = 1 / math.sqrt(math.prod(layer.a_shape[1:]))
                layer.a(flat).copy_((2 * noise.uniform((1, *layer.a_shape)) - 1) * bound)
        return flat[0]

    def at_rank(self, rank: int, alpha: float) -> AdapterLayout:
        """The layout of adapters of the same layers at another rank."""
        layers, offset = [], 0
        for layer in self.layers:
            shapes = (rank, *layer.a_shape[1:]), (layer.b_shape[0], rank)
            layers.append(replace(layer, a_shape=shapes[0], b_shape=shapes[1], offset=offset))
            offset = layers[-1].end
        return AdapterLayout(replace(self.config, rank=rank, alpha=alpha), tuple(layers))

    def padded(self, weights: Tensor, lower: AdapterLayout) -> Tensor:
        """An adapter of a lower rank in this layout, with the same ΔW: the new rows of A and columns of B are 0, and
        B takes in the ratio of the scales. Shape: weights [lower.size] → [P]."""
        flat, rank = torch.zeros(1, self.size, dtype=weights.dtype), lower.config.rank
        for wide, narrow in zip(self.layers, lower.layers, strict=True):
            if not wide.frozen:
                wide.a(flat)[0, :rank] = narrow.a(weights[None])[0]
            wide.b(flat)[0, :, :rank] = narrow.b(weights[None])[0] * (lower.config.scale / self.config.scale)
        return flat[0]

    def norm(self, weights: Tensor) -> float:
        """The norm of all A and B together, frozen or not. Shape: weights [P]."""
        return math.sqrt(float(weights.float().square().sum()) + self._frozen_square)

    @cached_property
    def fresh_norm(self) -> float:
        """The norm of a fresh adapter. Bounds on an update are multiples of it."""
        return self.norm(self.initial(Noise(0, Domain.ADAPTER)))

    @cached_property
    def _frozen_square(self) -> float:
        return sum(float(layer.frozen_a().square().sum()) for layer in self.layers if layer.frozen)


def present(config: LoraConfig, model: nn.Module) -> LoraConfig:
    """`config` less the targets that the model lacks: attention in a U-Net without, a text branch in a last block."""
    names = [name for name, _ in model.named_modules()]
    return replace(config, targets=tuple(t for t in config.targets if any(_matches(name, t) for name in names)))


def _matches(name: str, target: str) -> bool:
    return fnmatchcase(f".{name}", f"*.{target}")


class SlotLora:
    """Attaches LoRA to the layers of a frozen model; the weights are given per call by `rows`."""

    def __init__(self, model: nn.Module, config: LoraConfig) -> None:
        """Raises ValueError when a target matches nothing that can be adapted."""
        self.layout = AdapterLayout(config, tuple(_slices(model, config)))
        self._parts: list[tuple[Tensor, Tensor]] | None = None
        modules = dict(model.named_modules())
        for index, layer in enumerate(self.layout.layers):
            module = modules[layer.name]
            if layer.frozen:
                # A buffer, so that it moves with the backbone.
                module.register_buffer(_FROZEN, layer.frozen_a().to(next(module.parameters())), persistent=False)
            module.register_forward_hook(self._hook(index, layer))

    @contextmanager
    def rows(self, weights: Tensor | None) -> Iterator[None]:
        """Within the block, row i of every batch runs with adapter `weights[i]`; rows m and above run without one.

        Shape: weights [m, P] with m ≤ the batch, in the type of the products; None is m = 0.
        """
        self._parts = self.layout.parts(weights) if weights is not None and len(weights) else None
        try:
            yield
        finally:
            self._parts = None

    def _hook(self, index: int, layer: LayerSlice) -> _Hook:
        low = _low_linear if layer.kind == "linear" else _low_conv
        scale = self.layout.config.scale

        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._parts is None:
                return output
            a, b = self._parts[index]
            adapted = len(b)
            reduced = low(module, inputs[0][:adapted], None if layer.frozen else a)
            return _plus(output, adapted, b, reduced, scale, layer.kind)

        return add


_FROZEN = "lora_frozen_a"


def _plus(
    output: Tensor, adapted: int, b: Tensor, reduced: Tensor, scale: float, kind: Literal["linear", "conv"]
) -> Tensor:
    """output_i + s B_i reduced_i for the rows i < `adapted`, in one fused product, in place when no gradient is needed.
    Shape: b [m, out, r]; linear: reduced [m, tokens, r]; conv: reduced [m, r, h w]."""
    rows = output[:adapted]
    b, reduced = b.to(output.dtype), reduced.to(output.dtype)
    left, right = (reduced, b.transpose(1, 2)) if kind == "linear" else (b, reduced)
    flat = rows.reshape(adapted, -1, rows.shape[-1]) if kind == "linear" else rows.flatten(2)
    if not torch.is_grad_enabled() and flat.data_ptr() == rows.data_ptr():
        flat.baddbmm_(left, right, alpha=scale)
        return output
    changed = torch.baddbmm(flat, left, right, alpha=scale).view(rows.shape)
    return changed if adapted == len(output) else torch.cat([changed, output[adapted:]])


def _low_linear(module: nn.Module, x: Tensor, a: Tensor | None) -> Tensor:
    """A_i x_i for every row i; A is the frozen one where `a` is None. Shape: x [m, ..., in] → [m, tokens, r]."""
    tokens = x.reshape(len(x), -1, x.shape[-1])
    return F.linear(tokens, module.get_buffer(_FROZEN)) if a is None else torch.bmm(tokens, a.transpose(1, 2))


def _low_conv(module: nn.Module, x: Tensor, a: Tensor | None) -> Tensor:
    """A_i ∗ x_i for every row i; A is the frozen one where `a` is None. Shape: x [m, in, h, w] → [m, r, h' w']."""
    assert isinstance(module, nn.Conv2d)
    if a is None:
        common = module.get_buffer(_FROZEN)
        return F.conv2d(x, common, None, module.stride, module.padding, module.dilation).flatten(2)
    kernel, padding = module.kernel_size, module.padding
    same = all(2 * pad == size - 1 for pad, size in zip(padding, kernel, strict=True) if isinstance(pad, int))
    plain = module.stride == (1, 1) and module.dilation == (1, 1) and same
    return (_same_conv(x, a) if plain else _grouped_conv(module, x, a)).flatten(2)


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
        layer = _slice(name, module, config, offset)
        offset = layer.end
        yield layer
    if unmatched:
        raise ValueError(f"LoRA targets that match no Linear or Conv2d of the backbone: {sorted(unmatched)}")


def _matched(model: nn.Module, config: LoraConfig) -> Iterator[tuple[str, str, nn.Linear | nn.Conv2d]]:
    for name, module in model.named_modules():
        target = next((t for t in config.targets if _matches(name, t)), None)
        if target is not None and isinstance(module, nn.Linear | nn.Conv2d):
            yield name, target, module


def _slice(name: str, module: nn.Linear | nn.Conv2d, config: LoraConfig, offset: int) -> LayerSlice:
    rank, frozen = config.rank, config.frozen_a
    if isinstance(module, nn.Linear):
        a_shape: tuple[int, ...] = (rank, module.in_features)
        return LayerSlice(name, "linear", a_shape, (module.out_features, rank), offset, frozen)
    if module.groups != 1:
        raise ValueError(f"{name}: a grouped convolution cannot be adapted")
    a_shape = (rank, module.in_channels, *module.kernel_size)
    return LayerSlice(name, "conv", a_shape, (module.out_channels, rank), offset, frozen)
