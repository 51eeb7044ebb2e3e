"""`papa backbone train-latent`: a small Stable Diffusion pipeline from scratch, in two stages, resumable.

First an AutoencoderKL whose latents are a quarter as high and wide as the images (absolute error, a touch of KL;
arXiv 2112.10752), then a UNet2DConditionModel together with a CLIP text encoder of a few words, on ε-prediction or by
rectified flow (arXiv 2209.03003), with the condition left out now and then (arXiv 2207.12598). Every image is described
by its class's word, sometimes by the generic word alone. A run that starts from another backbone has no first stage.
A run is a folder: `vae/` and `unet/` hold what is needed to go on, `pipeline/` is the newest average as a standard
StableDiffusionPipeline folder, `log.jsonl` the losses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from papa.backbone.datasets import LabelledImages
from papa.backbone.latent_pipeline import FLOW_SCHEDULER, SCHEDULER, new_networks, new_vae, save_latent_pipeline
from papa.backbone.run_state import load_state, save_state
from papa.backbone.vocabulary_file import read_vocabulary, write_vocabulary
from papa.backbone.words import FASHION_NEAR, FASHION_WORDS, GENERIC, word_tokenizer
from papa.denoiser import plain_attention
from papa.denoiser.components import load_component
from papa.noise import Domain, Noise, seed_torch
from papa.pipeline_folder import PipelineFolder, inspect_folder, resolve_backbone
from papa.schedule import NoiseSchedule, rectified_flow

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
    flow: bool = False
    """Whether the U-Net learns v = ε − x0 of rectified flow instead of ε."""
    start: str = ""
    """A latent backbone whose weights the U-Net and the text encoder begin with, and whose VAE is taken as it is."""


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

    Raises ValueError when `run` was started with another configuration, or `config.start` has networks of another
    shape.
    """
    autoencoder = _Autoencoder(data, config)
    if config.start:
        autoencoder.begin_with(config.start)
    else:
        stage = _Stage("vae", run, config, autoencoder.modules, autoencoder.loss)
        stage.train(config.vae_steps, report, save_every)
    denoising = _Denoising(autoencoder.latents(), data.y, autoencoder.vae, words, run, config)
    stage = _Stage("unet", run, config, denoising.modules, denoising.loss, denoising.average, denoising.write)
    stage.train(config.steps, report, save_every)
    return run / "pipeline"


def _begin_with(backbone: str, networks: Mapping[str, nn.Module]) -> PipelineFolder:
    """Copies the weights of a backbone's components into networks of the same shapes. Raises ValueError."""
    folder = inspect_folder(resolve_backbone(backbone))
    for part, network in networks.items():
        if part not in folder.parts:
            raise ValueError(f"{backbone} has no {part}; a backbone that this command trained has one")
        try:
            network.load_state_dict(load_component(folder, part, type(network)).state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the {part} of {backbone} has another shape: {reason}") from error
    return folder


class _Stage:
    """One resumable optimisation; batches and noise follow from (seed, step) alone."""

    def __init__(
        self,
        name: str,
        run: Path,
        config: LatentConfig,
        modules: dict[str, nn.Module],
        loss: Callable[[Noise], Tensor],
        stepped: Callable[[int], None] = lambda step: None,
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        """Optimises every module whose name does not begin with "ema"; all of them are saved.

        `loss` computes the loss of one step from its random numbers. `stepped` is called with the number of steps after
        each one, `saved` after each save.
        """
        self._name, self._run, self._config, self._modules = name, run, config, modules
        self._loss, self._stepped, self._saved = loss, stepped, saved
        learning = [module for name, module in modules.items() if not name.startswith("ema")]
        self._parameters = [parameter for module in learning for parameter in module.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=config.learning_rate, weight_decay=1e-4)
        self._step = 0

    def train(self, steps: int, report: Report, save_every: int) -> None:
        """Trains until `steps` are done, going on from the state of an earlier run."""
        self._resume()
        started, since, losses = time.perf_counter(), self._step, list[float]()
        while self._step < steps:
            losses.append(self._train_step(steps))
            if self._step % save_every == 0 or self._step == steps:
                record = {"step": self._step, "config": self._fixed()}
                save_state(self._run / self._name, self._modules, self._optimizer, record)
                self._saved()
            if self._step % 25 == 0 or self._step == steps:
                seconds = (time.perf_counter() - started) / (self._step - since)
                progress = LatentProgress(self._name, self._step, steps, sum(losses) / len(losses), seconds)
                with (self._run / "log.jsonl").open("a") as file:
                    file.write(json.dumps(asdict(progress)) + "\n")
                report(progress)
                started, since, losses = time.perf_counter(), self._step, []

    def _train_step(self, steps: int) -> float:
        random = Noise(self._config.seed, Domain.TRAINING, 1 + self._step)
        left = (steps - self._step) / max(1.0, steps / 2)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * min(1.0, (self._step + 1) / 100) * max(0.05, min(1.0, left))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._config.bfloat16):
            loss = self._loss(random)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._step += 1
        self._stepped(self._step)
        return float(loss.detach())

    def _fixed(self) -> dict[str, object]:
        fixed = json.loads(json.dumps(asdict(self._config)))
        # Runs that were begun before there was a choice say nothing of it.
        left_out = {"steps", "vae_steps"} | {name for name in ("flow", "start") if not fixed[name]}
        return {name: value for name, value in fixed.items() if name not in left_out}

    def _resume(self) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        record = load_state(self._run / self._name, self._modules, self._optimizer)
        if record is None:
            return
        if record["config"] != self._fixed():
            raise ValueError(f"{self._run} was started with another configuration: {record['config']}")
        self._step = int(record["step"])


class _Autoencoder:
    """The first stage: images to latents and back."""

    def __init__(self, data: LabelledImages, config: LatentConfig) -> None:
        seed_torch(config.seed, Domain.TRAINING)
        self.images, self.config = data.x, config
        self.vae = new_vae(data.x.shape, config.vae_channels, config.latent_channels)
        self.modules: dict[str, nn.Module] = {"vae": self.vae}

    def loss(self, random: Noise) -> Tensor:
        """Absolute error of the rebuilt images, and `config.kl` times the divergence from a normal distribution."""
        x = self.images[random.integers(len(self.images), self.config.batch_size)]
        posterior = self.vae.encode(x).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        z = mean + (0.5 * log_variance).exp() * random.normal(mean.shape)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        rebuilt: Tensor = self.vae.decode(z).sample
        loss: Tensor = (rebuilt.float() - x).abs().mean() + self.config.kl * divergence
        return loss

    def begin_with(self, backbone: str) -> None:
        """Takes the VAE of another backbone, and its scale of latents. Raises ValueError."""
        folder = _begin_with(backbone, {"vae": self.vae})
        self.vae.register_to_config(scaling_factor=folder.config("vae")["scaling_factor"])

    @torch.no_grad()
    def latents(self) -> Tensor:
        """The latents of every image, scaled to variance 1, or as the backbone that the run began with scales them; the
        VAE's configuration gets the factor."""
        self.vae.eval().requires_grad_(False)
        modes = torch.cat([self.vae.encode(part).latent_dist.mode() for part in self.images.split(256)])
        if not self.config.start:
            self.vae.register_to_config(scaling_factor=1 / float(modes.std()))
        return modes * float(self.vae.config.scaling_factor)


class _Denoising:
    """The second stage: the noise of latents, conditioned on words."""

    def __init__(
        self,
        latents: Tensor,
        classes: Tensor,
        vae: AutoencoderKL,
        words: Sequence[str],
        run: Path,
        config: LatentConfig,
    ) -> None:
        seed_torch(config.seed + 1, Domain.TRAINING)
        self.z, self.classes, self.vae, self.words = latents, classes, vae, words
        self.run, self.config = run, config
        self.tokenizer = word_tokenizer([*words, GENERIC, ARTICLE])
        self.captions = self._captions()
        self.schedule: NoiseSchedule = NoiseSchedule.from_diffusers(SCHEDULER)
        if config.flow:
            self.schedule = rectified_flow(FLOW_SCHEDULER, tokens=0)
        unet, text = new_networks(latents.shape, config.channels, config.text_width, self.tokenizer)
        self.unet, self.text = unet, text
        plain_attention(unet)
        if config.start:
            folder = _begin_with(config.start, {"unet": unet, "text_encoder": text})
            known, _ = read_vocabulary(folder.path)
            if known != (*words, GENERIC):
                raise ValueError(f"{config.start} was trained with other words, so that its text encoder knows others")
        self.averages = (deepcopy(unet).requires_grad_(False), deepcopy(text).requires_grad_(False))
        self.modules: dict[str, nn.Module] = {
            "unet": unet, "text": text, "ema_unet": self.averages[0], "ema_text": self.averages[1]
        }  # fmt: skip

    def loss(self, random: Noise) -> Tensor:
        """Squared error of the predicted noise; the description is the class's word, the generic word, or none."""
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
        noisy, time = self.schedule.add_noise(z, noise, t), self.schedule.told(t)
        predicted = self.unet(noisy, time, encoder_hidden_states=hidden).sample
        wanted = noise - z if config.flow else noise
        loss: Tensor = (predicted.float() - wanted).square().mean()
        return loss

    def average(self, step: int) -> None:
        """Moves the exponential averages of the weights towards those after `step` steps."""
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        for average, module in zip(self.averages, (self.unet, self.text), strict=True):
            for target, source in zip(average.parameters(), module.parameters(), strict=True):
                target.lerp_(source.detach(), 1 - decay)

    def write(self) -> None:
        """Writes the averages as a pipeline folder."""
        unet, text = (deepcopy(average).eval().half() for average in self.averages)
        folder = self.run / "pipeline"
        save_latent_pipeline(deepcopy(self.vae).half(), text, self.tokenizer, unet, folder, self.config.flow)
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
