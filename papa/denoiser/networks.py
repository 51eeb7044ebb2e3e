"""How each class of model is called: model, x [n, C, H, W], t [n], the conditions' parts → its prediction, like x."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from papa.denoiser.conditions import Parts

Network = Callable[[nn.Module, Tensor, Tensor, Parts], Tensor]


def unconditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """UNet2DModel."""
    output: Tensor = model(x, t).sample
    return output


def text_conditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """UNet2DConditionModel; what is not the text's hidden states are its added conditions (SDXL)."""
    added = {name: part for name, part in parts.items() if name != "encoder_hidden_states"}
    tokens = parts["encoder_hidden_states"]
    output: Tensor = model(x, t, encoder_hidden_states=tokens, added_cond_kwargs=added or None).sample
    return output


def class_conditional(model: nn.Module, x: Tensor, t: Tensor, parts: Parts) -> Tensor:
    """DiTTransformer2DModel; a variance that it learnt beside is left out, samplers here do not use it."""
    output: Tensor = model(x, timestep=t, class_labels=parts["class_labels"]).sample
    return output[:, : x.shape[1]]
