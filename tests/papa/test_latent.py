"""Latent and text-to-image backbones against diffusers' own pipelines, on models of the same classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.dit import pipeline_dit
from torch import Tensor

from papa.adapter import new_adapter
from papa.adoption import Adoption
from papa.config import ATTENTION_LORA, DEFAULT_UPDATE, UpdateConfig
from papa.denoiser import Denoiser, PromptRefused, load_denoiser
from papa.diffusers_lora import DIFFUSERS_FILE, diffusers_lora
from papa.noise import Noise
from papa.revision_files import MANIFEST_FILE, AdapterDamagedError, Origin, digest, pack, unpack
from papa.sampler import sample
from papa.updating import Labels, UpdateJob, update, update_many
from tests.papa.pipelines import diffusion_transformer, saved, stable_diffusion, stable_diffusion_xl
from tests.papa.support import random_adapters

STEPS = 5
SHAPE = (4, 8, 8)
PROMPTS, GUIDANCE = ["a red boot", "sneaker", "shirt", ""], [3.0, 1.0, 5.0, 3.0]
UPDATE = UpdateConfig(steps=3, like_rows=4, dislike_rows=2, learning_rate=5e-2)


@pytest.fixture(scope="module")
def text_backbone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Denoiser]:
    pipe = stable_diffusion()
    return pipe, load_denoiser(saved(pipe, tmp_path_factory.mktemp("sd") / "pipeline"))


def noise(seed: int) -> Tensor:
    return Noise(seed).normal((1, *SHAPE))


def pictured(pipe: Any, prompt: str, guidance: float, seed: int, **more: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = pipe(
            prompt,
            latents=noise(seed),
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            output_type="pt",
            height=16,
            width=16,
            **more,
        ).images
    result: Tensor = images[0] * 2 - 1
    return result


def mixed(denoiser: Denoiser, adapters: Tensor | None = None, negative: str = "") -> Tensor:
    """All prompts and scales in one batch."""
    conditions = denoiser.conditions(PROMPTS, GUIDANCE, negative)
    return denoiser.decode(sample(denoiser, list(range(len(PROMPTS))), adapters, steps=STEPS, conditions=conditions))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "xl"])
def test_a_mixed_batch_equals_the_pipeline_one_prompt_at_a_time(kind: str, tmp_path: Path) -> None:
    pipe = stable_diffusion_xl() if kind == "xl" else stable_diffusion(kind)
    ours = mixed(load_denoiser(saved(pipe, tmp_path)))
    for row, (prompt, guidance) in enumerate(zip(PROMPTS, GUIDANCE, strict=True)):
        theirs = pictured(pipe, prompt, guidance if prompt else 1.0, row)
        torch.testing.assert_close(ours[row], theirs, atol=1e-4, rtol=0)
    assert (ours[0] - ours[2]).abs().max() > 0.05


def test_a_negative_prompt_takes_the_place_of_none(text_backbone: tuple[Any, Denoiser]) -> None:
    pipe, denoiser = text_backbone
    theirs = pictured(pipe, PROMPTS[0], GUIDANCE[0], 0, negative_prompt="clothing")
    torch.testing.assert_close(mixed(denoiser, negative="clothing")[0], theirs, atol=1e-4, rtol=0)
    assert (theirs - mixed(denoiser)[0]).abs().max() > 1e-3


def test_classes_by_name_and_number_equal_the_transformer_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = diffusion_transformer()
    denoiser = load_denoiser(saved(pipe, tmp_path))
    pipe.set_progress_bar_config(disable=True)
    conditions = denoiser.conditions(["Ankle boot", "5"], [4.0, 1.0])
    ours = denoiser.decode(sample(denoiser, [0, 1], steps=STEPS, conditions=conditions))
    for row, (label, guidance) in enumerate([(3, 4.0), (5, 1.0)]):
        # This pipeline takes no latents.
        monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda shape, row=row, **_: Noise(row).normal(shape))
        images = pipe([label], guidance_scale=guidance, num_inference_steps=STEPS, output_type="np").images
        theirs = torch.from_numpy(np.asarray(images[0])).permute(2, 0, 1) * 2 - 1
        torch.testing.assert_close(ours[row], theirs, atol=1e-4, rtol=0)
    with pytest.raises(PromptRefused, match="one of the backbone's 1000 classes"):
        denoiser.conditions(["a red boot"])


def test_rows_with_adapters_and_prompts_do_not_see_their_neighbours(text_backbone: tuple[Any, Denoiser]) -> None:
    _, denoiser = text_backbone
    adapters = random_adapters(denoiser, 2)
    together = mixed(denoiser, adapters)
    for row in range(len(PROMPTS)):
        own = adapters[row : row + 1] if row < 2 else None
        conditions = denoiser.conditions(PROMPTS[row : row + 1], GUIDANCE[row : row + 1])
        alone = denoiser.decode(sample(denoiser, [row], own, steps=STEPS, conditions=conditions))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
    plain = mixed(denoiser)
    assert (together[:2] - plain[:2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(together[2:], plain[2:], atol=1e-5, rtol=0)


def labels(denoiser: Denoiser, prompts: tuple[str, ...]) -> Labels:
    generator = torch.Generator().manual_seed(9)
    samples = torch.randn(len(prompts), *denoiser.sample_shape, generator=generator).to(denoiser.sample_dtype)
    return Labels(samples, torch.tensor([1.0, -1.0, 0.5, -0.5][: len(prompts)]), prompts)


@pytest.mark.parametrize("make", [stable_diffusion, stable_diffusion_xl])
def test_an_exported_adapter_gives_the_same_picture_in_the_pipeline(make: Any, tmp_path: Path) -> None:
    pipe = make()
    denoiser = load_denoiser(saved(pipe, tmp_path / "pipeline"))
    fresh = new_adapter(denoiser, seed=1)
    adapter, _ = update(denoiser, fresh, labels(denoiser, ("boot", "a red shirt", "boot", "")), UPDATE, seed=2)
    files = pack(adapter, denoiser.layout, UPDATE, Origin(denoiser.backbone_hash, "", 0.0))
    (tmp_path / DIFFUSERS_FILE).write_bytes(diffusers_lora(files))
    pipe.load_lora_weights(tmp_path, weight_name=DIFFUSERS_FILE)
    ours = mixed(denoiser, adapter.weights.expand(len(PROMPTS), -1))
    for row in range(2):
        theirs = pictured(pipe, PROMPTS[row], GUIDANCE[row], row)
        torch.testing.assert_close(ours[row], theirs, atol=1e-4, rtol=0)
    assert (ours[:2] - mixed(denoiser)[:2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_what_is_no_adapter_cannot_be_exported() -> None:
    with pytest.raises(AdapterDamagedError, match="peft"):
        diffusers_lora({"adapter_config.json": b"{}"})


def test_an_update_is_conditioned_on_what_was_asked(text_backbone: tuple[Any, Denoiser]) -> None:
    _, denoiser = text_backbone
    start = new_adapter(denoiser, seed=1)
    asked, unasked = (
        update(denoiser, start, labels(denoiser, (text,) * 4), UPDATE, seed=2)[0].weights for text in ("boot", "")
    )
    assert not torch.allclose(asked, unasked, atol=1e-3)


def test_users_with_different_prompts_train_together_as_alone(text_backbone: tuple[Any, Denoiser]) -> None:
    _, denoiser = text_backbone
    jobs = [
        UpdateJob(new_adapter(denoiser, seed), labels(denoiser, (prompt, "", prompt, "shirt")), seed)
        for seed, prompt in enumerate(("boot", "sneaker"))
    ]
    together = update_many(denoiser, jobs, UPDATE)
    for job, (adapter, _) in zip(jobs, together, strict=True):
        alone, _ = update(denoiser, job.adapter, job.labels, UPDATE, job.seed)
        torch.testing.assert_close(adapter.weights, alone.weights, atol=2e-4, rtol=0)


def test_latents_and_prompts_travel_with_the_revision(text_backbone: tuple[Any, Denoiser]) -> None:
    _, denoiser = text_backbone
    prompts = ("boot", "", "a red shirt", "boot")
    adapter, _ = update(denoiser, new_adapter(denoiser), labels(denoiser, prompts), UPDATE, seed=2)
    files = pack(adapter, denoiser.layout, UPDATE, Origin(denoiser.backbone_hash, "", 0.0))
    again = unpack(files, denoiser.layout, denoiser.hashes, digest(files[MANIFEST_FILE])).replay
    assert again.prompts == prompts
    assert again.samples.dtype == torch.float16
    adopted = Adoption.of(denoiser, DEFAULT_UPDATE, 1e6).adopt(files, denoiser.backbone_hash).replay
    assert adopted.prompts == prompts


def test_pictures_come_back_from_their_latents(text_backbone: tuple[Any, Denoiser]) -> None:
    pipe, denoiser = text_backbone
    pictures = torch.rand(2, *denoiser.image_shape) * 2 - 1
    latents = denoiser.encode(pictures)
    assert latents.shape == (2, *denoiser.sample_shape)
    with torch.no_grad():
        mode = pipe.vae.encode(pictures).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(latents, mode)


def test_adapters_of_such_backbones_lie_on_attention_alone(text_backbone: tuple[Any, Denoiser]) -> None:
    _, denoiser = text_backbone
    assert denoiser.layout.config == ATTENTION_LORA
    assert {layer.kind for layer in denoiser.layout.layers} == {"linear"}


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        *(
            ("unet/config.json", "_class_name", name, f"the unet is a {name}; supported is UNet2DConditionModel")
            for name in ("FluxTransformer2DModel", "SD3Transformer2DModel", "PixArtTransformer2DModel")
        ),
        (
            "unet/config.json",
            "in_channels",
            9,
            "models that edit a picture",
        ),
        ("unet/config.json", "addition_embed_type", "image", "addition_embed_type 'image'"),
        ("vae/config.json", "_class_name", "VQModel", "the vae is a VQModel; supported is AutoencoderKL"),
        ("scheduler/scheduler_config.json", "beta_schedule", None, "no noise schedule"),
    ],
)
def test_other_pipelines_are_refused_by_name(
    file: str, field: str, value: object, message: str, tmp_path: Path
) -> None:

    saved(stable_diffusion(), tmp_path)
    config = json.loads((tmp_path / file).read_text()) | {field: value}
    (tmp_path / file).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(ValueError, match=message):
        load_denoiser(str(tmp_path))
