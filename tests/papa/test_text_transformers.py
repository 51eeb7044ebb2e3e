"""Text-to-image transformers against diffusers' own pipelines, on tiny models of the published classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.denoiser import BackboneRefused, Denoiser, load_denoiser
from papa.denoiser.networks import z_image
from papa.diffusers_lora import DIFFUSERS_FILE, diffusers_lora
from papa.noise import Noise
from papa.revision_files import Origin, pack
from papa.sampler import sample
from papa.updating import Labels, update
from tests.papa import text_pipelines as made
from tests.papa.support import edit, random_adapters

STEPS = 3
PROMPTS, GUIDANCE = ["a red boot", "sneaker", "shirt"], [3.0, 1.0, 5.0]
UPDATE = UpdateConfig(steps=2, like_rows=3, dislike_rows=2, learning_rate=5e-2)
KINDS: dict[str, Callable[[], Any]] = {
    "sd3": made.stable_diffusion_3,
    "flux-dev": made.flux,
    "flux-schnell": lambda: made.flux(guided=False),
    "pixart-alpha": made.pixart,
    "pixart-sigma": lambda: made.pixart(alpha=False),
    "sana": made.sana,
    "z-image": made.z_image,
}


class Loaded:
    """A pipeline of diffusers, and its folder as we load it."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind, self.pipe = kind, KINDS[kind]()
        self.pipe.set_progress_bar_config(disable=True)
        self.folder = made.saved(self.pipe, root / kind)
        self.denoiser = load_denoiser(self.folder)

    def theirs(self, row: int) -> Tensor:
        """The picture that diffusers draws, alone."""
        x = Noise(row).normal((1, *self.denoiser.sample_shape))
        more: dict[str, Any] = {"guidance_scale": GUIDANCE[row]}
        if self.kind.startswith("flux"):
            x = self.pipe._pack_latents(x, 1, *self.denoiser.sample_shape)
        if self.kind == "z-image":
            # There s = 1 + guidance_scale.
            more = {"guidance_scale": GUIDANCE[row] - 1}
        if self.kind.startswith(("pixart", "sana")):
            more |= {"clean_caption": False, "use_resolution_binning": False}
        _, height, width = self.denoiser.image_shape
        more |= {"height": height, "width": width, "num_inference_steps": STEPS, "output_type": "pt"}
        with torch.no_grad():
            images = self.pipe(PROMPTS[row], latents=x, **more).images
        picture: Tensor = images[0] * 2 - 1
        return picture

    def ours(self, adapters: Tensor | None = None) -> Tensor:
        """All prompts and scales in one batch."""
        conditions = self.denoiser.conditions(PROMPTS, GUIDANCE)
        rows = list(range(len(PROMPTS)))
        return self.denoiser.decode(sample(self.denoiser, rows, adapters, steps=STEPS, conditions=conditions))


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(request.param, tmp_path_factory.mktemp(request.param))


def test_a_mixed_batch_equals_the_pipeline_one_prompt_at_a_time(loaded: Loaded) -> None:
    ours = loaded.ours()
    for row in range(len(PROMPTS)):
        torch.testing.assert_close(ours[row], loaded.theirs(row), atol=1e-4, rtol=0)
    assert (ours[0] - ours[1]).abs().max() > 1e-3


def test_rows_with_adapters_do_not_see_their_neighbours(loaded: Loaded) -> None:
    denoiser = loaded.denoiser
    adapters = random_adapters(denoiser, 2)
    together, plain = loaded.ours(adapters), loaded.ours()
    conditions = denoiser.conditions(PROMPTS[1:2], GUIDANCE[1:2])
    alone = denoiser.decode(sample(denoiser, [1], adapters[1:2], steps=STEPS, conditions=conditions))
    torch.testing.assert_close(together[1], alone[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(together[2], plain[2], atol=1e-4, rtol=0)
    assert (together[:2] - plain[:2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def trained(denoiser: Denoiser) -> Any:
    samples = torch.randn(4, *denoiser.sample_shape, generator=torch.Generator().manual_seed(9)).half()
    labels = Labels(samples, torch.tensor([1.0, -1.0, 0.5, -0.5]), ("boot", "shirt", "boot", ""))
    return update(denoiser, new_adapter(denoiser, seed=1), labels, UPDATE, seed=2)[0]


def test_an_exported_adapter_gives_the_same_picture_in_the_pipeline(loaded: Loaded, tmp_path: Path) -> None:
    denoiser = loaded.denoiser
    adapter = trained(denoiser)
    layers = {layer.name for layer in denoiser.layout.layers}
    assert any("to_q" in name for name in layers) and any("ff" in name or "feed_forward" in name for name in layers)
    if not hasattr(loaded.pipe, "load_lora_weights"):
        assert loaded.kind.startswith("pixart"), "diffusers' other pipelines load them"
        return
    files = pack(adapter, denoiser.layout, UPDATE, Origin(denoiser.backbone_hash, "", 0.0))
    (tmp_path / DIFFUSERS_FILE).write_bytes(diffusers_lora(files))
    ours, plain = loaded.ours(adapter.weights.expand(len(PROMPTS), -1)), loaded.ours()
    loaded.pipe.load_lora_weights(tmp_path, weight_name=DIFFUSERS_FILE)
    try:
        theirs = [loaded.theirs(row) for row in range(2)]
    finally:
        loaded.pipe.unload_lora_weights()
    torch.testing.assert_close(ours[:2], torch.stack(theirs), atol=1e-4, rtol=0)
    assert (ours[:2] - plain[:2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_features_are_finite_and_of_the_picture(loaded: Loaded) -> None:
    x0 = torch.randn(2, *loaded.denoiser.sample_shape)
    features = loaded.denoiser.features(x0)
    assert features.shape[0] == 2 and bool(features.isfinite().all())
    assert not torch.allclose(features[0], features[1])


ABSENT = {"first": ("",), "second": ("_2",), "third": ("_3",), "clip": ("", "_2"), "all": ("", "_2", "_3")}


@pytest.mark.parametrize("which", ABSENT)
def test_stable_diffusion_3_without_a_text_encoder(which: str, tmp_path: Path) -> None:
    """diffusers itself runs without T5 alone; without a CLIP encoder zeros take the place of its embedding."""
    parts = {f"{part}{suffix}": None for part in ("text_encoder", "tokenizer") for suffix in ABSENT[which]}
    pipe = made.stable_diffusion_3(**parts)
    denoiser = load_denoiser(made.saved(pipe, tmp_path))
    conditions = denoiser.conditions(["a red boot", "shirt"], 3.0)
    assert conditions is not None
    pictures = denoiser.decode(sample(denoiser, [0, 0], steps=STEPS, conditions=conditions))
    assert bool(pictures.isfinite().all())
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5) is (which == "all")
    pooled = conditions.asked["pooled_projections"]
    absent = [pooled[:, :12], pooled[:, 12:]]
    assert [bool((part == 0).all()) for part in absent] == ["" in ABSENT[which], "_2" in ABSENT[which]]
    if which != "third":
        return
    pipe.set_progress_bar_config(disable=True)
    x = Noise(0).normal((1, *denoiser.sample_shape))
    with torch.no_grad():
        images = pipe(
            "a red boot",
            latents=x,
            num_inference_steps=STEPS,
            guidance_scale=3.0,
            output_type="pt",
            height=16,
            width=16,
        ).images
    torch.testing.assert_close(pictures[0], images[0] * 2 - 1, atol=1e-4, rtol=0)


def test_a_negative_prompt_of_sana_comes_without_the_instruction(tmp_path: Path) -> None:
    pipe = made.sana()
    pipe.set_progress_bar_config(disable=True)
    denoiser = load_denoiser(made.saved(pipe, tmp_path))
    conditions = denoiser.conditions(["a red boot"], 3.0, negative="shirt")
    ours = denoiser.decode(sample(denoiser, [0], steps=STEPS, conditions=conditions))
    with torch.no_grad():
        images = pipe(
            "a red boot", negative_prompt="shirt", latents=Noise(0).normal((1, *denoiser.sample_shape)),
            num_inference_steps=STEPS, guidance_scale=3.0, output_type="pt", height=32, width=32, clean_caption=False,
            use_resolution_binning=False,
        ).images  # fmt: skip
    torch.testing.assert_close(ours[0], images[0] * 2 - 1, atol=1e-4, rtol=0)


def test_pixart_is_told_the_size_of_its_pictures(tmp_path: Path) -> None:
    denoiser = load_denoiser(made.saved(made.pixart(size=128), tmp_path))
    conditions = denoiser.conditions(PROMPTS[:2])
    assert conditions is not None
    _, height, width = denoiser.image_shape
    assert conditions.asked["resolution"].tolist() == 2 * [[height, width]]
    assert conditions.asked["aspect_ratio"].tolist() == 2 * [[height / width]]


def test_in_float16_t5_keeps_the_layers_that_overflow_there(tmp_path: Path) -> None:
    folder = made.saved(made.pixart(), tmp_path)
    kinds = {}
    for dtype in (torch.float16, torch.bfloat16):
        (encoder,) = load_denoiser(folder, dtype=dtype)._conditioner.modules
        kinds[dtype] = {name.rpartition(".")[2]: layer.weight.dtype for name, layer in encoder.named_modules()
                        if name.endswith((".wo", ".wi"))}  # fmt: skip
    assert kinds[torch.float16] == {"wo": torch.float32, "wi": torch.float16}
    assert kinds[torch.bfloat16] == {"wo": torch.bfloat16, "wi": torch.bfloat16}


def test_z_image_is_told_the_time_in_float32() -> None:
    told: list[torch.Tensor] = []

    def model(x: list[Tensor], time: Tensor, captions: list[Tensor], return_dict: bool) -> tuple[list[Tensor]]:
        told.append(time)
        return (x,)

    parts = {"encoder_hidden_states": torch.zeros(2, 3, 4), "attention_mask": torch.ones(2, 3)}
    z_image(model, torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16), torch.tensor([461.5, 642.0]), parts)
    torch.testing.assert_close(told[0], torch.tensor([0.5385, 0.358]))


@pytest.mark.parametrize(
    ("kind", "file", "change", "wanted"),
    [
        ("sd3", "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ("sd3", "scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas"),
        ("sd3", "text_encoder_3/config.json", {"architectures": ["BertModel"]}, "T5EncoderModel"),
        ("sana", "transformer/config.json", {"guidance_embeds": True}, "SANA-Sprint"),
        ("flux-dev", "tokenizer_2/tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"}, "T5Tokenizer"),
        ("flux-dev", "model_index.json", {"_class_name": "FluxFillPipeline"}, "FluxPipeline"),
        (
            "sd3",
            "model_index.json",
            {"_class_name": "QwenImagePipeline"},
            "a QwenImagePipeline, which cannot be served",
        ),
    ],
)
def test_what_is_not_that_pipeline_is_refused(
    kind: str, file: str, change: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    folder = Path(made.saved(KINDS[kind](), tmp_path))
    edit(folder / file, **change)
    with pytest.raises(BackboneRefused, match=wanted):
        load_denoiser(str(folder))


def test_where_the_steps_lie_belongs_to_the_hash(tmp_path: Path) -> None:
    folder = Path(made.saved(made.flux(), tmp_path))
    before = load_denoiser(str(folder))
    edit(folder / "scheduler" / "scheduler_config.json", max_shift=2.0)
    after = load_denoiser(str(folder))
    assert before.weights_hash == after.weights_hash
    assert before.backbone_hash != after.backbone_hash
