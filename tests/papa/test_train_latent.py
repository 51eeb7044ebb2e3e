"""The trainer of latent backbones: what it writes can be loaded, and a run that was broken off goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from papa.backbone.datasets import LabelledImages
from papa.backbone.train_latent import FASHION_WORDS, LatentConfig, LatentProgress, train_latent
from papa.backbone.words import word_tokenizer
from papa.denoiser import load_denoiser
from papa.noise import Noise
from papa.sampler import sample
from papa.schedule import RectifiedFlow

CONFIG = LatentConfig(
    vae_steps=4, steps=4, batch_size=4, vae_channels=(8, 8), channels=(16, 16), text_width=16, learning_rate=1e-2
)
WEIGHTS = Path("pipeline/unet/diffusion_pytorch_model.safetensors")


def images() -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.rand(24, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(24) % 10)


def quiet(progress: LatentProgress) -> None:
    """Reports are looked at where they are the point."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    train_latent(images(), run, CONFIG, quiet)
    return run


def test_a_run_makes_a_pipeline_that_takes_its_words(whole: Path) -> None:
    denoiser = load_denoiser(str(whole / "pipeline"))
    assert (denoiser.sample_shape, denoiser.image_shape, denoiser.takes_prompt) == ((4, 4, 4), (1, 8, 8), True)
    x0 = sample(denoiser, [0, 1], steps=2, conditions=denoiser.conditions(["boot", "clothing"], 3.0))
    assert denoiser.decode(x0).shape == (2, 1, 8, 8)


def test_a_broken_run_goes_on_to_the_same_weights(whole: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(progress: LatentProgress) -> None:
        if progress.stage == "unet":
            raise Interrupted

    with pytest.raises(Interrupted):
        train_latent(images(), tmp_path, replace(CONFIG), stop, save_every=2)
    resumed: list[LatentProgress] = []
    train_latent(images(), tmp_path, CONFIG, resumed.append, save_every=2)
    mine, theirs = (load_file(run / WEIGHTS) for run in (tmp_path, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    with pytest.raises(ValueError, match="another configuration"):
        train_latent(images(), tmp_path, replace(CONFIG, batch_size=5), quiet)


def test_a_run_of_rectified_flow_makes_a_pipeline_that_diffusers_runs(tmp_path: Path) -> None:
    folder = train_latent(images(), tmp_path, replace(CONFIG, flow=True), quiet)
    denoiser = load_denoiser(str(folder))
    assert isinstance(denoiser.schedule, RectifiedFlow)
    assert denoiser.prediction == "flow_prediction"
    conditions = denoiser.conditions(["boot"], 3.0)
    ours = denoiser.decode(sample(denoiser, [1], None, "dpmpp_2m", 12, conditions=conditions))
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 12, "guidance_scale": 3.0, "output_type": "pt", "height": 8, "width": 8}
    theirs = pipe("boot", latents=Noise(1).normal((1, *denoiser.sample_shape)), **options).images * 2 - 1
    # diffusers rounds the time that it tells the network.
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="another configuration"):
        train_latent(images(), tmp_path, CONFIG, quiet)


def test_the_loss_of_rectified_flow_is_that_of_the_velocity(tmp_path: Path) -> None:
    """A U-Net that knows ε − x0 would have none; trained on one picture it gets there."""
    one = LabelledImages(images().x[:1].expand(24, -1, -1, -1), torch.zeros(24, dtype=torch.int64))
    seen: list[LatentProgress] = []
    train_latent(one, tmp_path, replace(CONFIG, flow=True, steps=30), seen.append, save_every=10)
    losses = [each.loss for each in seen if each.stage == "unet"]
    assert losses[-1] < 0.8 * losses[0]


def test_every_word_is_one_token() -> None:
    tokenizer = word_tokenizer([*FASHION_WORDS, "clothing", "a"])
    for word in (*FASHION_WORDS, "clothing", "a"):
        assert len(tokenizer(word).input_ids) == 3, word
    assert len(tokenizer("unicorn").input_ids) > 3


def test_a_run_may_begin_with_another_backbone(whole: Path, tmp_path: Path) -> None:
    """Its VAE is taken as it is; the U-Net begins with its weights, also where it is to learn rectified flow."""
    start = str(whole / "pipeline")
    seen: list[LatentProgress] = []
    config = replace(CONFIG, start=start, flow=True, steps=1, learning_rate=0.0)
    made = train_latent(images(), tmp_path / "run", config, seen.append)
    assert {each.stage for each in seen} == {"unet"}
    for part, file in (
        ("vae", "diffusion_pytorch_model"),
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        before, after = (load_file(Path(folder) / part / f"{file}.safetensors") for folder in (start, made))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before), part
    scales = [
        json.loads((Path(folder) / "vae" / "config.json").read_text())["scaling_factor"] for folder in (start, made)
    ]
    assert scales[0] == scales[1]
    with pytest.raises(ValueError, match="another shape"):
        train_latent(images(), tmp_path / "other", replace(config, channels=(16, 32)), quiet)
    with pytest.raises(ValueError, match="other words"):
        train_latent(images(), tmp_path / "words", config, quiet, words=FASHION_WORDS[::-1])
    with pytest.raises(ValueError, match="fashion_mnist has no vae"):
        train_latent(images(), tmp_path / "pixels", replace(config, start="fashion_mnist"), quiet)
