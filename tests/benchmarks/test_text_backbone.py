"""The shipped text backbones: their words mean something, the benchmark aligns them, the gate knows their pictures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from papa_serving.settings import GateSettings
from papa_serving.trainer import gate as gate_module
from papa_serving.trainer.gate import Gate, Look
from torch import Tensor

from benchmarks.alignment.runs import Run
from benchmarks.alignment.simulate import simulate
from benchmarks.alignment.systems.registry import build
from benchmarks.alignment.world import PROMPTS, World
from papa.adapter import new_adapter
from papa.backbone.words import FASHION_WORDS, GENERIC
from papa.config import LATENT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.oracle import Oracle, load_oracle
from papa.sampler import sample
from papa.updating import UpdateStats

NAMES = ("fashion_mnist_text", "fashion_mnist_flow")
"""A DDPM, and the same networks by rectified flow."""
SOUND = UpdateStats(likes=1, dislikes=1, loss_first=0.2, loss_last=0.1, norm=1.0, change=0.1, differentiated=8, plain=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def denoiser(name: str) -> Denoiser:
    return load_denoiser(name)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle()


def drawn(denoiser: Denoiser, prompts: list[str], guidance: float) -> Tensor:
    conditions = denoiser.conditions(prompts, guidance)
    seeds = list(range(len(prompts)))
    return denoiser.decode(sample(denoiser, seeds, None, "dpmpp_2m", 8, conditions=conditions))


def test_every_word_shows_what_it_says(denoiser: Denoiser, oracle: Oracle) -> None:
    """Judged by a classifier that has never seen the backbone. 3 of 4 must be right; 9 of 10 are usual."""
    asked = [word for word in FASHION_WORDS for _ in range(4)]
    seen = oracle.classify(drawn(denoiser, asked, 2.0))
    right = seen == torch.tensor([FASHION_WORDS.index(word) for word in asked])
    assert right.double().mean() > 0.75
    assert len(oracle.classify(drawn(denoiser, [GENERIC] * 24, 1.0)).unique()) >= 5


def test_the_benchmark_aligns_it(name: str, oracle: Oracle) -> None:
    run = Run("gated", (7, 9), dataset=name, rounds=4, samples=32, final_samples=32, evaluated=(0,))
    world = World(oracle, torch.randn(40, 64), torch.arange(40) % 10, name, None, PROMPTS[name])
    first, *_, last = simulate(run, world, build(world, run))
    assert first["success"] < 0.45
    assert last["success"] > first["success"] + 0.25
    assert last["refused"] == []


def test_the_gate_looks_at_pictures_where_latents_tell_nothing(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = drawn(denoiser, list(FASHION_WORDS[:8]), 2.0)
    good, dim = denoiser.encode(pictures), denoiser.encode(-1 + 0.15 * (pictures + 1))
    bright, dark = Look.at(good), Look.at(dim)
    assert dark.distance > GateSettings().min_diversity * bright.distance
    assert dark.deviation > GateSettings().min_contrast * bright.deviation

    def sampled(_: Denoiser, seeds: list[int], adapters: Tensor | None, *more: object, **named: object) -> Tensor:
        return good if adapters is None else torch.cat([good, dim, torch.full_like(good, torch.inf)])

    monkeypatch.setattr(gate_module, "sample", sampled)
    adapter = (new_adapter(denoiser), SOUND)
    verdicts = Gate(denoiser, GateSettings(), LATENT_UPDATE).judge([adapter] * 3)
    assert [verdict and verdict.reason for verdict in verdicts] == [None, "diversity", "pixels"]
