"""`papa backbone train`: a small DDPM U-Net from scratch, resumable, with an EMA and sample sheets.

The loss is the ε-prediction mean squared error weighted by min(SNR_t, γ) / SNR_t (Hang et al., arXiv 2303.09556, eq.
4), which reaches a given sample quality in fewer steps than the plain mean. A run is a folder: `state/` holds
everything needed to go on, `pipeline/` is the newest EMA as a standard diffusers folder, `log.jsonl` the losses.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from papa.backbone.datasets import LabelledImages
from papa.backbone.sheet import sample_sheet
from papa.config import DEFAULT_LORA
from papa.denoiser import load_denoiser, plain_attention
from papa.denoiser.components import load_component
from papa.noise import Domain, Noise, seed_torch
from papa.pipeline_folder import inspect_folder, resolve_backbone
from papa.schedule import NoiseSchedule


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run. It is stored beside the state and compared on resume."""

    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 4e-4
    warmup_steps: int = 200
    ema_decay: float = 0.999
    snr_gamma: float = 5.0
    channels: tuple[int, ...] = (32, 64, 128)
    layers_per_block: int = 1
    bfloat16: bool = False
    seed: int = 0
    start: str = ""
    """A backbone's name or folder whose U-Net the run starts from, for which the channels and layers must agree."""


@dataclass(frozen=True)
class TrainProgress:
    """One report: `step` of `steps` done, running mean of the loss, seconds per step since the last report."""

    step: int
    steps: int
    loss: float
    seconds_per_step: float


Report = Callable[[TrainProgress], None]


def train(
    data: LabelledImages, run: Path, config: TrainConfig, report: Report, save_every: int = 250, sheet_every: int = 0
) -> Path:
    """Trains until `config.steps`, going on from `run` where it holds a state; returns the pipeline folder.

    Every `sheet_every` steps (0: never) a sheet of the EMA's samples is drawn into `run/sheets`.

    Raises ValueError when `run` was started with another configuration (but for `steps`, which may grow), or where
    `config.start` is a network of another shape.
    """
    trainer = _Trainer(data, run, config)
    trainer.resume()
    started, since, losses = time.perf_counter(), trainer.step, []
    while trainer.step < config.steps:
        losses.append(trainer.train_step())
        if trainer.step % save_every == 0 or trainer.step == config.steps:
            trainer.save()
        if sheet_every and trainer.step % sheet_every == 0:
            trainer.save_sheet()
        if trainer.step % 25 == 0 or trainer.step == config.steps:
            seconds = (time.perf_counter() - started) / (trainer.step - since)
            progress = TrainProgress(trainer.step, config.steps, sum(losses) / len(losses), seconds)
            _append_line(run / "log.jsonl", asdict(progress))
            report(progress)
            started, since, losses = time.perf_counter(), trainer.step, []
    return run / "pipeline"


def new_unet(sample_size: int, in_channels: int, channels: tuple[int, ...], layers_per_block: int) -> UNet2DModel:
    """The project's small U-Net: attention at the lowest resolution only, group norm of 8 groups."""
    plain = len(channels) - 1
    return UNet2DModel(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=in_channels,
        layers_per_block=layers_per_block,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        attention_head_dim=16,
        norm_num_groups=8,
    )


def save_pipeline(unet: UNet2DModel, folder: Path) -> None:
    """Writes a DDPMPipeline folder with half-precision weights (safetensors)."""
    copy = UNet2DModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    DDPMPipeline(unet=copy.half(), scheduler=DDPMScheduler()).save_pretrained(folder, safe_serialization=True)


class _Trainer:
    """The mutable state of a run: weights, EMA, Adam moments, step. Batches follow from (seed, step) alone."""

    def __init__(self, data: LabelledImages, run: Path, config: TrainConfig) -> None:
        self.images, self.run, self.config = data.x, run, config
        seed_torch(config.seed, Domain.TRAINING)
        _, channels, size, _ = data.x.shape
        self.unet = new_unet(size, channels, config.channels, config.layers_per_block)
        if config.start:
            _start_from(self.unet, config.start)
        self.ema = new_unet(size, channels, config.channels, config.layers_per_block).requires_grad_(False)
        self.ema.load_state_dict(self.unet.state_dict())
        plain_attention(self.unet)
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=config.learning_rate, weight_decay=1e-4)
        self.schedule = NoiseSchedule.linear()
        snr = self.schedule.alphas_cumprod / (1 - self.schedule.alphas_cumprod)
        self.weights = (snr.clamp(max=config.snr_gamma) / snr).float()
        self.step = 0

    def train_step(self) -> float:
        random = Noise(self.config.seed, Domain.TRAINING, 1 + self.step)
        x0 = self.images[self._batch_rows()]
        noise = random.normal(x0.shape)
        t = random.integers(self.schedule.num_timesteps, len(x0))
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.bfloat16):
            predicted = self.unet(self.schedule.add_noise(x0, noise, t), t).sample
        squared = (predicted.float() - noise).square().flatten(1).mean(dim=1)
        loss = (self.weights[t] * squared).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._update_ema()
        return float(squared.detach().mean())

    def _batch_rows(self) -> Tensor:
        size = self.config.batch_size
        per_epoch = len(self.images) // size
        epoch, index = divmod(self.step, per_epoch)
        order = Noise(self.config.seed, Domain.ORDER, epoch).permutation(len(self.images))
        return order[index * size : (index + 1) * size]

    def _learning_rate(self) -> float:
        """Linear warm-up, then linear decay to a tenth over the last third of the run."""
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        left = (self.config.steps - self.step) / max(1.0, self.config.steps / 3)
        return self.config.learning_rate * warm * max(0.1, min(1.0, left))

    def _update_ema(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for target, source in zip(self.ema.parameters(), self.unet.parameters(), strict=True):
            target.lerp_(source.detach(), 1 - decay)

    def save(self) -> None:
        """Writes the new state beside the old and swaps the folders, so that a kill leaves one whole state."""
        fresh, current, old = (self.run / name for name in ("state.new", "state", "state.old"))
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir(parents=True)
        save_file(self.unet.state_dict(), fresh / "unet.safetensors")
        save_file(self.ema.state_dict(), fresh / "ema.safetensors")
        save_file(self._moments(), fresh / "adam.safetensors")
        (fresh / "run.json").write_text(json.dumps({"step": self.step, "config": asdict(self.config)}))
        if current.exists():
            current.replace(old)
        fresh.replace(current)
        save_pipeline(self.ema, self.run / "pipeline")

    def save_sheet(self) -> None:
        """Draws the newest saved EMA."""
        path = self.run / "sheets" / f"{self.step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        sample_sheet(load_denoiser(str(self.run / "pipeline"), DEFAULT_LORA)).save(path)

    def resume(self) -> None:
        states = [self.run / "state", self.run / "state.old"]
        folder = next((path for path in states if (path / "run.json").exists()), None)
        if folder is None:
            return
        stored = json.loads((folder / "run.json").read_text())
        mine = json.loads(json.dumps(asdict(self.config)))
        if {**stored["config"], "steps": 0} != {**mine, "steps": 0}:
            raise ValueError(f"{self.run} was started with another configuration: {stored['config']}")
        self.unet.load_state_dict(load_file(folder / "unet.safetensors"))
        self.ema.load_state_dict(load_file(folder / "ema.safetensors"))
        self._restore_moments(load_file(folder / "adam.safetensors"))
        self.step = int(stored["step"])

    def _moments(self) -> dict[str, Tensor]:
        states = self.optimizer.state_dict()["state"]
        return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}

    def _restore_moments(self, moments: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _start_from(unet: UNet2DModel, start: str) -> None:
    """Copies the weights of the backbone `start`, which may lie as load_denoiser takes it. Raises FileNotFoundError, or
    ValueError where it is no pixel U-Net or one of another shape."""
    folder = inspect_folder(resolve_backbone(start))
    if "vae" in folder.parts:
        raise ValueError(f"{start} is a {folder.pipeline}; a run starts from the UNet2DModel of a DDPMPipeline")
    try:
        unet.load_state_dict(load_component(folder, "unet", UNet2DModel).state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{start} has other channels or layers than this run: {reason}") from error


def _append_line(path: Path, record: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
