"""One signature over every foreign model: x_t, t → ε, with any row's own adapter.

Nothing outside this file knows whether the backbone predicts ε, v or x0, or which library it comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from papa.lora import AdapterLayout, LoraConfig, SlotLora
from papa.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v_prediction", "sample"]

FEATURE_TIMESTEP = 50
"""Where `features` reads the mid block: late enough to see details, early enough to see meaning."""

SHIPPED = Path(__file__).parent / "backbone" / "weights"
"""Where the backbones lie that come with the package, each a standard diffusers folder."""


def fast_type(device: str) -> torch.dtype | None:
    """bfloat16 where the device multiplies it faster than float32, else None: what `autocast` is best set to."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else None


def plain_attention(model: nn.Module) -> None:
    """Attention as two matrix products and a softmax, for small images on a CPU.

    torch's fused kernel has a backward pass in bfloat16 there that takes a quarter of a whole training step.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


class Denoiser:
    """A frozen backbone with room for one adapter per row.

    `sample_shape` is [channels, height, width] of x. `backbone` is the sha256 (hexadecimal) over weights and
    configuration: adapters of one backbone are never applied to another. `autocast` is the type in which products and
    convolutions are computed while weights, normalisation and results stay as they are; None leaves all as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        sample_shape: tuple[int, int, int],
        prediction: Prediction,
        lora: LoraConfig,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.schedule = schedule
        self.sample_shape = sample_shape
        self.prediction = prediction
        self.autocast = autocast
        self.backbone = backbone_hash(model, schedule, prediction)
        self._lora = SlotLora(model, lora)

    @property
    def layout(self) -> AdapterLayout:
        """The layout of this deployment's adapters."""
        return self._lora.layout

    @property
    def device(self) -> torch.device:
        """Where the backbone lies."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's floating-point type."""
        return next(self.model.parameters()).dtype

    def epsilon(self, x: Tensor, t: Tensor, adapters: Tensor | None = None) -> Tensor:
        """ε_θ(x_t, t) per row. Shape: x [n, C, H, W]; t [n] int64; adapters [m, P], m ≤ n; result like x.

        Row i < m runs with adapter i, the others with the backbone alone. Differentiable in `adapters` and x.
        """
        rows = self._lora.rows(None if adapters is None else adapters.to(self.dtype))
        with rows, torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.model(x.to(self.dtype), t).sample.to(x.dtype)
        return self._to_epsilon(output, x, t)

    @property
    def feature_size(self) -> int:
        """F, the length of `features`."""
        return int(self.features(torch.zeros(1, *self.sample_shape, device=self.device)).shape[1])

    @torch.no_grad()
    def features(self, x0: Tensor) -> Tensor:
        """The backbone's own description of samples: its mid-block at little noise, averaged over positions.

        Shape: x0 [n, C, H, W] → [n, F] float32.
        """
        seen: list[Tensor] = []
        middle = self.model.get_submodule("mid_block")
        handle = middle.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            t = torch.full((len(x0),), FEATURE_TIMESTEP, device=x0.device)
            self.epsilon(self.schedule.alpha_bar(t, x0).sqrt() * x0, t)
        finally:
            handle.remove()
        return seen[0].flatten(2).mean(dim=2).float()

    def _to_epsilon(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return output
        alpha_bar = self.schedule.alpha_bar(t, x)
        if self.prediction == "v_prediction":
            return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * x
        return (x - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()


def load_denoiser(
    backbone: str,
    lora: LoraConfig,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> Denoiser:
    """Loads a shipped name, a diffusers folder or a hub id (an unconditional DDPM-class pipeline).

    `dtype` is the type of the weights, `autocast` that of products and convolutions (see Denoiser).

    Raises FileNotFoundError when it is none of them, ValueError when the pipeline's class is not supported.
    """
    from diffusers import UNet2DModel

    folder = resolve_backbone(backbone)
    config = _scheduler_config(folder)
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    prediction: Prediction = config.get("prediction_type", "epsilon")
    if device == "cpu":
        plain_attention(unet)
    schedule = NoiseSchedule.from_diffusers(config)
    denoiser = Denoiser(unet, schedule, (unet.config.in_channels, height, width), prediction, lora, autocast)
    # diffusers' own `to` warns about modules that it would rather keep in float32, of which there are none here.
    torch.nn.Module.to(denoiser.model, device=device, dtype=dtype)
    return denoiser


def resolve_backbone(backbone: str) -> Path:
    """The local folder of a backbone; a hub id is downloaded. Raises FileNotFoundError with what was tried."""
    for folder in (SHIPPED / backbone, Path(backbone)):
        if (folder / "unet" / "config.json").is_file():
            return folder
    if backbone.count("/") != 1 or Path(backbone).exists():
        raise FileNotFoundError(f"no backbone {backbone!r}: neither shipped ({shipped_names()}) nor a diffusers folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(backbone, allow_patterns=["*.json", "*/*.json", "*/*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(f"no backbone {backbone!r}: not a folder, and the hub says: {error}") from error


def shipped_names() -> list[str]:
    """The names of the backbones that come with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []


def backbone_hash(model: nn.Module, schedule: NoiseSchedule, prediction: str) -> str:
    """sha256 over every tensor (name, shape, half-precision bytes), ᾱ and the kind of prediction."""
    digest = hashlib.sha256(prediction.encode())
    digest.update(schedule.alphas_cumprod.numpy().tobytes())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _scheduler_config(folder: Path) -> Mapping[str, Any]:
    config: Mapping[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return config
