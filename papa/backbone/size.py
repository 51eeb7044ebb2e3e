"""How large a backbone is, and what an adapter of it takes, from its configurations alone.

The networks are made on torch's meta device, which has shapes and no storage: no weights are read, and a hub id costs a
few JSON files. Activations are not counted. They come on top, and grow with the rows of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from papa.denoiser.latents import LatentSpace
from papa.denoiser.networks import default_lora
from papa.lora import SlotLora
from papa.pipeline_folder import BackboneRefused, PipelineFolder, inspect_folder, resolve_backbone, sample_size

PRECISIONS = {"float32": 4, "bfloat16": 2}
"""Bytes of a weight."""


@dataclass(frozen=True)
class ComponentSize:
    """One network of the pipeline: its folder, its class and the number of its parameters."""

    part: str
    kind: str
    parameters: int


@dataclass(frozen=True)
class BackboneSize:
    """The sizes of one pipeline; `components` has the denoising network first."""

    pipeline: str
    components: tuple[ComponentSize, ...]
    picture: tuple[int, int, int]
    """Channels, height and width of what is served."""
    sample: tuple[int, int, int]
    """Shape of x0, which the store keeps of every item: float16 latents, or uint8 pixels where there is no VAE."""
    sample_bytes: int
    rank: int
    adapted_layers: int
    adapter_parameters: int
    """The learnt numbers of one adapter: B alone."""
    shared_parameters: int
    """The numbers of A, which are the same for all users. A revision has a copy, so that peft can read it."""

    @property
    def parameters(self) -> int:
        """Of all components together."""
        return sum(each.parameters for each in self.components)

    def weights_bytes(self, precision: str) -> int:
        """Memory of all weights. `precision` is a name in PRECISIONS."""
        return self.parameters * PRECISIONS[precision]

    def slot_bytes(self, precision: str) -> int:
        """Memory of one adapter in the engine."""
        return self.adapter_parameters * PRECISIONS[precision]

    @property
    def revision_bytes(self) -> int:
        """Of the adapter's file in a revision: A and B in float32. The replay lies beside it."""
        return 4 * (self.adapter_parameters + self.shared_parameters)

    def left(self, card_bytes: int, precision: str) -> int:
        """What the weights leave of a card, for adapters and activations; negative where they do not fit."""
        return card_bytes - self.weights_bytes(precision)


def backbone_size(backbone: str, rank: int | None = None) -> BackboneSize:
    """The sizes of a shipped name, a diffusers folder or a hub id, with adapters of `rank` (None: the default).

    Raises FileNotFoundError when `backbone` is none of them, BackboneRefused (a ValueError) when it cannot be served.
    """
    return pipeline_size(inspect_folder(resolve_backbone(backbone, weights=False)), rank)


def pipeline_size(folder: PipelineFolder, rank: int | None = None) -> BackboneSize:
    """The sizes of a folder; its tokenizers and weights need not be there. Raises BackboneRefused."""
    parts = [part for part in folder.parts if part != "scheduler" and not part.startswith("tokenizer")]
    networks = {part: _without_storage(folder, part) for part in parts}
    model = networks[folder.network]
    lora = default_lora(folder.pipeline, model)
    if rank is not None:
        lora = replace(lora, rank=rank, alpha=float(rank))
    height, width = sample_size(folder)
    if "vae" in networks:
        latents = LatentSpace(networks["vae"])
        sample = (latents.channels, height, width)
        picture = (latents.image_channels, height * latents.factor, width * latents.factor)
    else:
        sample = picture = (int(model.config.in_channels), height, width)
    components = tuple(ComponentSize(part, type(each).__name__, _count(each)) for part, each in networks.items())
    layout = SlotLora(model, lora).layout
    return BackboneSize(
        pipeline=folder.pipeline,
        components=components,
        picture=picture,
        sample=sample,
        sample_bytes=math.prod(sample) * (2 if "vae" in networks else 1),
        rank=lora.rank,
        adapted_layers=len(layout.layers),
        adapter_parameters=layout.size,
        shared_parameters=sum(math.prod(layer.a_shape) for layer in layout.layers if layer.frozen),
    )


def _without_storage(folder: PipelineFolder, part: str) -> Any:
    """A network of the pipeline on the meta device. Raises BackboneRefused."""
    import diffusers
    import transformers

    name, config = folder.layout.parts[part][0], dict(folder.config(part))
    try:
        with torch.device("meta"):
            if part.startswith("text_encoder"):
                kind = getattr(transformers, name)
                return kind(kind.config_class(**config))
            return getattr(diffusers, name).from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        where, reason = folder.path_of(part) / "config.json", " ".join(str(error).split())
        raise BackboneRefused(f"{where} describes no {name}; copy it again ({reason})") from error


def _count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())
