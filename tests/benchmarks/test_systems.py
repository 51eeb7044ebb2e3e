"""Every system on a tiny backbone: it learns without error, is deterministic, and counts what it costs."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.alignment.report import write_report
from benchmarks.alignment.runner import machine, raw_file
from benchmarks.alignment.runs import Run, Sampling
from benchmarks.alignment.selection import most_informative
from benchmarks.alignment.simulate import simulate
from benchmarks.alignment.systems.d3po import D3po, D3poConfig
from benchmarks.alignment.systems.guidance import ClassifierGuidance, GuidanceConfig
from benchmarks.alignment.systems.registry import SYSTEMS, build
from benchmarks.alignment.world import World
from papa.config import DEFAULT_LORA
from papa.denoiser import load_denoiser
from papa.oracle import Oracle
from tests.trainer.tiny_backbone import write_tiny_backbone

STEPS, LABELS = 4, 6
COST = {
    "base": (0, 0),
    "ours": (6 * 32, 6 * 32 + LABELS),
    "reference-epapa": (LABELS * 600, LABELS * 600 + LABELS * 996),
    "reference-papa": (LABELS * 1000, LABELS * 1000 + LABELS * 996),
    "reward-model": (6 * 32, 20 * STEPS),
    "diffusion-kto": (6 * 32, 6 * 32),
    "guidance": (0, 0),
}
"""(differentiated, plain) of one interaction step beyond showing LABELS items in STEPS steps."""


@pytest.fixture(scope="module")
def tiny_world(tmp_path_factory):
    torch.manual_seed(0)
    oracle = Oracle().eval()
    real = torch.randn(40, 64)
    backbone = str(write_tiny_backbone(tmp_path_factory.mktemp("backbone")))
    return World(oracle, real, torch.arange(40) % 10, backbone, None)


def tiny_run(system):
    thinned = (("timesteps", 3),) if system.startswith("reference") else ()
    fitted = (("fit_steps", 5),) if system in ("guidance", "reward-model") else ()
    overrides = (*thinned, *fitted, ("draw_steps", STEPS))
    return Run(system, (0, 1, 2, 3, 4), rounds=2, labels=LABELS, samples=10, final_samples=10, evaluated=(0, 1),
               overrides=overrides)  # fmt: skip


def grades(count):
    return torch.tensor([1.0, -1.0] * (count // 2))


@pytest.mark.parametrize("system", SYSTEMS)
def test_learns_without_error_and_the_same_again(system, tiny_world):
    run = tiny_run(system)
    first, again = (list(simulate(run, tiny_world, build(tiny_world, run))) for _ in range(2))
    assert [record["step"] for record in first] == list(range(run.rounds + 1))
    assert [record.get("success") for record in first] == [record.get("success") for record in again]
    assert torch.isfinite(first[-1]["sheet"]).all()


@pytest.mark.parametrize("system", COST)
def test_counts_what_an_interaction_step_costs(system, tiny_world):
    tuned = build(tiny_world, tiny_run(system))
    shown = tuned.show(list(range(LABELS)))
    tuned.learn(shown, grades(LABELS), 0)
    differentiated, plain = COST[system]
    assert (tuned.cost.differentiated, tuned.cost.plain) == (differentiated, plain + LABELS * STEPS)


def test_d3po_raises_the_likelihood_of_what_was_liked(tiny_world):
    system = D3po(tiny_world.denoiser(), Sampling(), 0, D3poConfig(learning_rate=5e-3, passes=4, beta=1.0))
    shown = system.show(list(range(LABELS)))
    before = system.weights.detach().clone()
    system.learn(shown, grades(LABELS), 0)
    with torch.no_grad():
        gain = torch.stack([system._gain(index, torch.arange(LABELS), before) for index in range(19)]).sum(dim=0)
    assert gain[0::2].mean() > gain[1::2].mean()


def test_guidance_pulls_towards_what_was_liked(tiny_world):
    system = ClassifierGuidance(tiny_world.denoiser(), Sampling(), 0, GuidanceConfig(scale=40.0))
    bright, dark = torch.full((8, 1, 8, 8), 0.9), torch.full((8, 1, 8, 8), -0.9)
    seeds = list(range(16))
    before = system.draw(seeds).mean()
    system.learn(torch.cat([bright, dark]), torch.cat([torch.ones(8), -torch.ones(8)]), 0)
    assert system.draw(seeds).mean() > before


def test_selection_prefers_the_unknown_and_the_diverse(tiny_world):
    denoiser = load_denoiser(tiny_world.backbone, DEFAULT_LORA)
    random = torch.Generator().manual_seed(0)
    known = torch.randn(1, 1, 8, 8, generator=random)
    unlike = torch.randn(1, 1, 8, 8, generator=random) * 2
    candidates = torch.cat([known.repeat(5, 1, 1, 1), unlike])
    picked = most_informative(denoiser, candidates, known.repeat(6, 1, 1, 1), torch.ones(6), 2)
    assert 5 in picked.tolist()
    assert len(set(picked.tolist())) == 2


def test_the_page_says_what_was_not_run(tmp_path, tiny_world):
    raw = tmp_path / "raw"
    raw.mkdir()
    run = Run("ours", (5, 7, 9))
    head = {"machine": machine(), "date": "2026-01-01", "precision": "float32"}
    lines = [head, *({"step": s, "labels": 10 * s, "cost": 900 * s, "seconds": 1.0 * s, "success": 0.3 + s * 0.02,
                      "coverage": 0.9, "frechet": 10.0} for s in range(31))]  # fmt: skip
    raw_file(raw, run).write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = [path.name for path in write_report(raw, tmp_path / "alignment")]
    assert {"success_fashion_mnist.png", "success_fashion_mnist.csv", "systems.csv", "alignment.md"} <= set(written)
    page = (tmp_path / "alignment.md").read_text()
    assert "| coverage ≥ 0.85 | 0.900 | yes |" in page
    assert "| success at step 30 ≥ 0.95 | 0.900 | **no** |" in page
    assert "not measured" in page
    assert "- main: 1 of 24 runs" in page
