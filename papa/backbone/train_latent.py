"""`papa backbone train-latent`: a small Stable Diffusion pipeline from scratch, in two stages, resumable.

First an AutoencoderKL whose latents are a quarter as high and wide as the images (absolute error, a touch of KL;
arXiv 2112.10752), then a UNet2DConditionModel together with a CLIP text encoder of a few words, on ε-prediction with
the condition left out now and then (arXiv 2207.12598). Every image is described by its class's word, sometimes by the
generic word alone. A run is a folder: `vae/` and `unet/` hold what is needed to go on, `pipeline/` is the newest
average as a standard StableDiffusionPipeline folder, `log.jsonl` the losses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from papa.backbone.datasets import LabelledImages
from papa.backbone.latent_pipeline import SCHEDULER, new_networks, new_vae, save_latent_pipeline
from papa.backbone.run_state import load_state, save_state
from papa.backbone.vocabulary_file import write_vocabulary
from papa.backbone.words import FASHION_NEAR, FASHION_WORDS, GENERIC, word_tokenizer
from papa.denoiser import plain_attention
from papa.noise import Domain, Noise, seed_torch
from papa.schedule import NoiseSchedule

ARTICLE = "a"


@dataclass(frozen=True)
class LatentConfig:
    """The configuration of a run. It is stored beside the state and compared on resume, except for the steps."""

    vae_steps: int = 1500
    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 1e-3
    vae_channels: tuple[int, ...] = (16, 32, 32)
    latent_channels: int = 4
    channels: tuple[int, ...] = (64, 80)
    text_width: int = 64
    kl: float = 1e-3
    generic: float = 0.2
    """Share of images described by the generic word."""
    unasked: float = 0.1
    """Share of images without a description, from which the unconditional prediction of guidance is learnt."""
    ema_decay: float = 0.998
    bfloat16: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LatentProgress:
    """One report: `step` of `steps` of a stage ("vae" or "unet"), the running mean of its loss, seconds per step."""

    stage: str
    step: int
    steps: int
    loss: float
    seconds_per_step: float


Report = Callable[[LatentProgress], None]


def train_latent(
    data: LabelledImages,
    run: Path,
    config: LatentConfig,
    report: Report,
    words: Sequence[str] = FASHION_WORDS,
    save_every: int = 250,
) -> Path:
    """Trains until both stages are done, going on from `run` where it holds a state; returns the pipeline folder.

    Raises ValueError when `run` was started with another configuration.
    """
    autoencoder = _Autoencoder(data, run, config)
    autoencoder.run_stage(config.vae_steps, report, save_every)
    latents, scale = autoencoder.latents()
    denoising = _Denoising(latents, data.y, scale, autoencoder.vae, words, run, config)
    denoising.run_stage(config.steps, report, save_every)
    return run / "pipeline"


class _Stage:
    """One resumable optimisation; batches and noise follow from (seed, step) alone."""

    name: str

    def __init__(self, run: Path, config: LatentConfig, modules: dict[str, nn.Module], learning_rate: float) -> None:
        self.run, self.config, self.modules = run, config, modules
        self.rate = learning_rate
        learning = [module for name, module in modules.items() if not name.startswith("ema")]
        self.parameters = [parameter for module in learning for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=1e-4)
        self.step = 0

    def loss(self, random: Noise) -> Tensor:
        """The loss of the next step."""
        raise NotImplementedError

    def stepped(self) -> None:
        """A hook that runs after each optimiser step."""

    def saved(self) -> None:
        """A hook that runs after each save."""

    def run_stage(self, steps: int, report: Report, save_every: int) -> None:
        self._resume()
        started, since, losses = time.perf_counter(), self.step, list[float]()
        while self.step < steps:
            losses.append(self._train_step(steps))
            if self.step % save_every == 0 or self.step == steps:
                record = {"step": self.step, "config": self._fixed()}
                save_state(self.run / self.name, self.modules, self.optimizer, record)
                self.saved()
            if self.step % 25 == 0 or self.step == steps:
                seconds = (time.perf_counter() - started) / (self.step - since)
                progress = LatentProgress(self.name, self.step, steps, sum(losses) / len(losses), seconds)
                with (self.run / "log.jsonl").open("a") as file:
                    file.write(json.dumps(asdict(progress)) + "\n")
                report(progress)
                started, since, losses = time.perf_counter(), self.step, []

    def _train_step(self, steps: int) -> float:
        random = Noise(self.config.seed, Domain.TRAINING, 1 + self.step)
        left = (steps - self.step) / max(1.0, steps / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (self.step + 1) / 100) * max(0.05, min(1.0, left))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.bfloat16):
            loss = self.loss(random)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        self.stepped()
        return float(loss.detach())

    def _fixed(self) -> dict[str, object]:
        fixed = json.loads(json.dumps(asdict(self.config)))
        return {name: value for name, value in fixed.items() if name not in ("steps", "vae_steps")}

    def _resume(self) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        record = load_state(self.run / self.name, self.modules, self.optimizer)
        if record is None:
            return
        if record["config"] != self._fixed():
            raise ValueError(f"{self.run} was started with another configuration: {record['config']}")
        self.step = int(record["step"])


class _Autoencoder(_Stage):
    name = "vae"

    def __init__(self, data: LabelledImages, run: Path, config: LatentConfig) -> None:
        seed_torch(config.seed, Domain.TRAINING)
        self.images = data.x
        self.vae = new_vae(data.x.shape, config.vae_channels, config.latent_channels)
        super().__init__(run, config, {"vae": self.vae}, config.learning_rate)

    def loss(self, random: Noise) -> Tensor:
        x = self.images[random.integers(len(self.images), self.config.batch_size)]
        posterior = self.vae.encode(x).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        z = mean + (0.5 * log_variance).exp() * random.normal(mean.shape)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        rebuilt: Tensor = self.vae.decode(z).sample
        loss: Tensor = (rebuilt.float() - x).abs().mean() + self.config.kl * divergence
        return loss

    @torch.no_grad()
    def latents(self) -> tuple[Tensor, float]:
        """The latents of every image, and the factor that scales their variance to 1."""
        self.vae.eval().requires_grad_(False)
        modes = torch.cat([self.vae.encode(part).latent_dist.mode() for part in self.images.split(256)])
        scale = 1 / float(modes.std())
        self.vae.register_to_config(scaling_factor=scale)
        return modes * scale, scale


class _Denoising(_Stage):
    name = "unet"

    def __init__(
        self,
        latents: Tensor,
        classes: Tensor,
        scale: float,
        vae: AutoencoderKL,
        words: Sequence[str],
        run: Path,
        config: LatentConfig,
    ) -> None:
        seed_torch(config.seed + 1, Domain.TRAINING)
        self.z, self.classes, self.vae, self.words = latents, classes, vae, words
        self.tokenizer = word_tokenizer([*words, GENERIC, ARTICLE])
        self.captions = self._captions()
        self.schedule = NoiseSchedule.from_diffusers(SCHEDULER)
        unet, text = new_networks(latents.shape, config.channels, config.text_width, self.tokenizer)
        self.unet, self.text = unet, text
        plain_attention(unet)
        self.averages = (deepcopy(unet).requires_grad_(False), deepcopy(text).requires_grad_(False))
        modules = {"unet": unet, "text": text, "ema_unet": self.averages[0], "ema_text": self.averages[1]}
        super().__init__(run, config, modules, config.learning_rate)

    def loss(self, random: Noise) -> Tensor:
        config = self.config
        rows = random.integers(len(self.z), config.batch_size)
        z, noise = self.z[rows], random.normal((config.batch_size, *self.z.shape[1:]))
        t = random.integers(self.schedule.num_timesteps, config.batch_size)
        kind = random.uniform((config.batch_size,))
        article = random.integers(2, config.batch_size)
        caption = 2 * self.classes[rows] + article
        caption = torch.where(kind < config.generic, 2 * len(self.words), caption)
        caption = torch.where(kind > 1 - config.unasked, 2 * len(self.words) + 1, caption)
        hidden = self.text(self.captions)[0][caption]
        predicted = self.unet(self.schedule.add_noise(z, noise, t), t, encoder_hidden_states=hidden).sample
        loss: Tensor = (predicted.float() - noise).square().mean()
        return loss

    def stepped(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for average, module in zip(self.averages, (self.unet, self.text), strict=True):
            for target, source in zip(average.parameters(), module.parameters(), strict=True):
                target.lerp_(source.detach(), 1 - decay)

    def saved(self) -> None:
        unet, text = (deepcopy(average).eval().half() for average in self.averages)
        save_latent_pipeline(deepcopy(self.vae).half(), text, self.tokenizer, unet, self.run / "pipeline")
        near = {said: word for said, word in FASHION_NEAR.items() if not word or word in (*self.words, GENERIC)}
        write_vocabulary(self.run / "pipeline", [*self.words, GENERIC], near)

    def _captions(self) -> Tensor:
        """Token ids of every description: per class with and without article, then the generic one, then none."""
        texts = [text for word in self.words for text in (word, f"{ARTICLE} {word}")]
        ids: Tensor = self.tokenizer(
            [*texts, GENERIC, ""],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return ids
