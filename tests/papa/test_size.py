"""Sizes from configurations alone: the published ones, and those of pipelines that can be loaded to compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.published_pipelines import CONFIGURATIONS
from benchmarks.sizes import adapter_table, backbone_table, sizes
from papa.backbone.size import BackboneSize, backbone_size
from papa.denoiser import Denoiser, load_denoiser
from papa.pipeline_folder import BackboneRefused
from tests.papa import pipelines, text_pipelines
from tests.papa.support import edit, save_tiny_backbone

KINDS: dict[str, Callable[[], Any]] = {
    "sdxl": pipelines.stable_diffusion_xl,
    "dit": pipelines.diffusion_transformer,
    "sd3": text_pipelines.stable_diffusion_3,
    "flux": text_pipelines.flux,
    "sana": text_pipelines.sana,
    "z-image": text_pipelines.z_image,
}
COUNTS = {
    "Stable Diffusion 1.5": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "Stable Diffusion XL": {"unet": 2_567_463_684, "text_encoder_2": 694_659_840},
    "Stable Diffusion 3.5 medium": {"transformer": 2_243_171_520, "text_encoder_3": 4_762_310_656},
    "FLUX.1-dev": {"transformer": 11_901_408_320},
}
"""Parameters of published weights."""


def agrees(size: BackboneSize, denoiser: Denoiser) -> bool:
    """Whether a size is that of the loaded backbone."""
    network = size.components[0]
    return (
        network.parameters == sum(weights.numel() for weights in denoiser.model.parameters())
        and size.adapter_parameters == denoiser.layout.size
        and (size.sample, size.picture) == (denoiser.sample_shape, denoiser.image_shape)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_is_that_of_the_loaded_backbone(kind: str, tmp_path: Path) -> None:
    folder = text_pipelines.saved(KINDS[kind](), tmp_path / kind)
    assert agrees(backbone_size(folder), load_denoiser(folder))


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_text"])
def test_a_size_of_a_shipped_backbone(name: str) -> None:
    assert agrees(backbone_size(name), load_denoiser(name))


@pytest.mark.parametrize("name", COUNTS)
def test_published_networks_have_the_parameters_that_were_published(name: str) -> None:
    found = {each.part: each.parameters for each in sizes(name).components}
    assert {part: found[part] for part in COUNTS[name]} == COUNTS[name]


def test_adapters_grow_with_their_rank_and_a_card_may_be_too_small() -> None:
    of_4, of_8 = sizes("Stable Diffusion 1.5", 4), sizes("Stable Diffusion 1.5", 8)
    assert of_4.adapted_layers == 128, "16 transformer blocks, each with 8 projections"
    assert of_8.adapter_parameters == 2 * of_4.adapter_parameters
    assert of_4.left(3 * 2**30, "bfloat16") > 0 > of_4.left(3 * 2**30, "float32")
    assert "859.5 M" in backbone_table({"Stable Diffusion 1.5": of_4})
    assert "| 8 |" in adapter_table({"Stable Diffusion 1.5": [of_8]})


def test_the_figures_in_the_documentation_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    assert backbone_table({name: sizes(name) for name in CONFIGURATIONS}) in page


def test_a_configuration_that_describes_no_network_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "tiny")
    edit(folder / "unet" / "config.json", down_block_types=["NoSuchBlock", "DownBlock2D"])
    with pytest.raises(BackboneRefused, match="describes no UNet2DModel"):
        backbone_size(str(folder))
