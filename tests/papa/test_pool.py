"""The backbone's own samples, which replay fills in from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from papa.adapter import new_adapter
from papa.backbone.draw_pool import draw_pool
from papa.config import UpdateConfig
from papa.denoiser import SHIPPED, load_denoiser
from papa.lora import LoraConfig
from papa.pool import FIRST_SEED, POOL_FILE, StoredPool, read_pool, write_pool
from papa.updating import Labels, UpdateJob, update, update_many
from tests.papa.pipelines import saved, stable_diffusion
from tests.papa.support import drawn_by, likes_bright, shades, tiny_denoiser, with_pool

SHAPE = (1, 8, 8)
CONFIG = UpdateConfig(steps=2, like_rows=6, dislike_rows=4, pool_share=0.5)


def test_a_pool_is_the_backbones_own_samples_and_the_same_each_time() -> None:
    pool = draw_pool(tiny_denoiser(), 3, steps=2)
    drawn = pool.samples
    assert drawn.dtype == torch.uint8 and drawn.shape == (3, *SHAPE) and pool.first_seed == FIRST_SEED
    assert torch.equal(drawn, draw_pool(tiny_denoiser(), 3, steps=2).samples)
    assert not torch.equal(drawn[0], drawn[1])


def test_a_backbone_brings_its_pool_along(backbone_folder: Path) -> None:
    assert load_denoiser(str(backbone_folder), LoraConfig(rank=2)).pool is None
    samples = shades(10, 100, 200)
    write_pool(backbone_folder, StoredPool(samples, 77))
    denoiser = load_denoiser(str(backbone_folder), LoraConfig(rank=2))
    assert denoiser.pool is not None and denoiser.pool.first_seed == 77
    torch.testing.assert_close(denoiser.pool.x0, samples.float() / 127.5 - 1)
    torch.testing.assert_close(
        denoiser.pool.features.float(), denoiser.features(denoiser.pool.x0), atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("wrong", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 9, 8, dtype=torch.uint8)])
def test_a_pool_of_something_else_is_refused(tmp_path: Path, wrong: torch.Tensor) -> None:
    save_file({"samples": wrong}, tmp_path / POOL_FILE)
    with pytest.raises(ValueError, match=POOL_FILE):
        read_pool(tmp_path, SHAPE)
    save_file({"others": wrong}, tmp_path / POOL_FILE)
    with pytest.raises(ValueError, match="nothing"):
        read_pool(tmp_path, SHAPE)
    save_file(
        {"samples": torch.zeros(2, *SHAPE, dtype=torch.uint8), "first_seed": torch.zeros(2)}, tmp_path / POOL_FILE
    )
    with pytest.raises(ValueError, match="first_seed"):
        read_pool(tmp_path, SHAPE)
    samples = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    save_file({"samples": samples, "first_seed": torch.tensor([-5])}, tmp_path / POOL_FILE)
    with pytest.raises(ValueError, match="below"):
        read_pool(tmp_path, SHAPE)
    (tmp_path / POOL_FILE).write_bytes((tmp_path / POOL_FILE).read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        read_pool(tmp_path, SHAPE)


def test_what_is_made_to_order_has_no_pool(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pixels"):
        draw_pool(load_denoiser(saved(stable_diffusion(), tmp_path)), 1, steps=1)


def test_likes_are_drawn_from_what_is_foretold_to_be_liked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the rows of each kind, and of the pool no row of the other kind."""
    denoiser = with_pool(shades(*[245] * 5, *[10] * 5))
    likes, dislikes = drawn_by(denoiser, likes_bright(), CONFIG, monkeypatch)
    for probabilities, known, unrated, foreign in (
        (likes, slice(0, 6), slice(12, 17), slice(17, 22)),
        (dislikes, slice(6, 12), slice(17, 22), slice(12, 17)),
    ):
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
        assert probabilities[known].sum().item() == pytest.approx(0.5, abs=1e-5)
        assert probabilities[unrated].sum().item() == pytest.approx(0.5, abs=1e-5)
        assert not probabilities[foreign].any()


def test_without_both_kinds_of_labels_or_with_a_share_of_zero_no_row_comes_from_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = shades(*[245] * 5, *[10] * 5)
    pooled = with_pool(samples)
    liked = Labels(shades(*[240] * 6), torch.ones(6))
    for given, config, known in ((liked, CONFIG, 6), (likes_bright(), replace(CONFIG, pool_share=0.0), 12)):
        for probabilities in drawn_by(pooled, given, config, monkeypatch):
            assert probabilities[:known].sum().item() == pytest.approx(1, abs=1e-5)
            assert not probabilities[known:].any()


def test_a_liked_sample_is_drawn_the_more_the_better_it_stands_for_the_backbones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backbone makes two liked shades equally often, but one was shown three times as often."""
    given = Labels(shades(*[240] * 9, *[150] * 3, *[15] * 6), torch.tensor([1.0] * 12 + [-1.0] * 6))
    denoiser = with_pool(shades(*[241] * 10, *[151] * 10, *[14] * 10))
    likes, dislikes = drawn_by(denoiser, given, replace(CONFIG, neighbours=4, pool_share=0.0), monkeypatch)
    often, seldom = likes[:9].sum(), likes[9:12].sum()
    assert 0.5 < float(often / seldom) < 2
    alike, _ = drawn_by(denoiser, given, replace(CONFIG, neighbours=0, pool_share=0.0), monkeypatch)
    assert 2.5 < float(alike[:9].sum() / alike[9:12].sum()) < 3.5
    assert dislikes[12:18].tolist() == pytest.approx([1 / 6] * 6, rel=0.05)


def test_users_with_a_pool_are_trained_together_as_alone() -> None:
    denoiser = with_pool(shades(*[245] * 5, *[10] * 5))
    turned = Labels(likes_bright().samples, -likes_bright().grades)
    jobs = [UpdateJob(new_adapter(denoiser), given, seed) for seed, given in enumerate((likes_bright(), turned))]
    for job, (adapter, _) in zip(jobs, update_many(denoiser, jobs, CONFIG), strict=True):
        alone, _ = update(denoiser, job.adapter, job.labels, CONFIG, job.seed)
        differs = torch.linalg.vector_norm(adapter.weights - alone.weights)
        assert differs < 0.02 * torch.linalg.vector_norm(alone.weights)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_the_shipped_pools_are_drawn_from_the_shipped_backbones(name: str) -> None:
    shipped = read_pool(SHIPPED / name, (1, 28, 28))
    assert shipped is not None and len(shipped.samples) == 512 and shipped.first_seed == FIRST_SEED
    again = draw_pool(load_denoiser(name), 4).samples
    # On another processor a sum may be taken in another order.
    assert (again.int() - shipped.samples[:4].int()).abs().float().mean() < 2
