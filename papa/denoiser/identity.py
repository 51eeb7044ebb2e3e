"""Which backbone an adapter belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import nn

from papa.schedule import NoiseSchedule


def backbone_hash(
    model: nn.Module, schedule: NoiseSchedule, prediction: str, companions: Iterable[nn.Module] = ()
) -> str:
    """sha256 over every tensor (name, shape, half-precision bytes), ᾱ and the kind of prediction.

    `companions` are the networks that define the meaning of the model's inputs and outputs: text encoders, then VAE.
    """
    digest = hashlib.sha256(prediction.encode())
    digest.update(schedule.alphas_cumprod.numpy().tobytes())
    for module in (model, *companions):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()
