"""Every system on a tiny backbone: it learns without error, is deterministic, and counts what it costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from papa_serving.generator.generation import explored
from papa_serving.settings import GateSettings, TrainerSettings
from papa_serving.trainer.gate import Gate

from benchmarks.alignment.grid import EXPERIMENTS
from benchmarks.alignment.report import write_report
from benchmarks.alignment.runner import machine, raw_file
from benchmarks.alignment.runs import Run, Sampling
from benchmarks.alignment.selection import most_informative
from benchmarks.alignment.simulate import simulate
from benchmarks.alignment.systems.d3po import D3po, D3poConfig
from benchmarks.alignment.systems.guidance import ClassifierGuidance, GuidanceConfig
from benchmarks.alignment.systems.registry import SYSTEMS, build
from benchmarks.alignment.world import World
from papa.config import ATTENTION_LORA, DEFAULT_LORA, LATENT_UPDATE
from papa.denoiser import load_denoiser
from papa.oracle import Oracle
from tests.papa.pipelines import saved, stable_diffusion
from tests.trainer.tiny_backbone import write_tiny_backbone

STEPS, LABELS = 4, 6
COST = {
    "base": (0, 0),
    "ours": (6 * 32, 6 * 32 + LABELS),
    "exploring": (6 * 32, 6 * 32 + LABELS),
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


@pytest.fixture(scope="module")
def text_world(tmp_path_factory):
    torch.manual_seed(0)
    oracle = Oracle(channels=3).eval()
    backbone = saved(stable_diffusion(), tmp_path_factory.mktemp("text"))
    return World(oracle, torch.randn(40, 64), torch.arange(40) % 10, backbone, None, prompt="clothing")


def text_run(system):
    return Run(system, (0, 1, 2, 3, 4), dataset="fashion_mnist_text", rounds=2, labels=4, samples=6, final_samples=6,
               evaluated=(0, 1), overrides=(("draw_steps", 3),))  # fmt: skip


def test_latents_are_learnt_from_under_the_words_that_made_them(text_world):
    run = text_run("ours")
    system = build(text_world, run)
    assert (system.config, system.denoiser.layout.config) == (LATENT_UPDATE, ATTENTION_LORA)
    records = list(simulate(run, text_world, system))
    assert [record["sheet"].shape for record in records if "sheet" in record] == [(6, 3, 16, 16)] * 3
    replay = system.adapter.replay
    assert (replay.samples.dtype, replay.prompts) == (torch.float16, ("clothing",) * 8)
    unasked = build(replace(text_world, prompt=""), run)
    assert not torch.equal(unasked.draw([0]), build(text_world, run).draw([0]))


def test_what_the_gate_refuses_leaves_the_adapter_as_it_was(text_world):
    run = text_run("gated")
    system = build(text_world, run)
    before = system.adapter
    system.gate = Gate(system.denoiser, GateSettings(max_change=1e-6), system.config)
    records = list(simulate(run, text_world, system))
    assert system.adapter is before
    assert records[-1]["refused"] == ["change"] * 2 * TrainerSettings().max_attempts
    open_gate = build(text_world, run)
    open_gate.gate = Gate(open_gate.denoiser, GateSettings(probe_samples=0), open_gate.config)
    assert list(simulate(run, text_world, open_gate))[-1]["refused"] == []
    assert not torch.equal(open_gate.adapter.weights, before.weights)


def test_rivals_that_work_on_pixels_are_not_run_on_latents(text_world):
    with pytest.raises(ValueError, match="d3po works on pixels"):
        build(text_world, text_run("d3po"))


@pytest.mark.parametrize("system", COST)
def test_counts_what_an_interaction_step_costs(system, tiny_world):
    tuned = build(tiny_world, tiny_run(system))
    shown = tuned.show(list(range(LABELS)))
    tuned.learn(shown, grades(LABELS), 0)
    differentiated, plain = COST[system]
    assert (tuned.cost.differentiated, tuned.cost.plain) == (differentiated, plain + LABELS * STEPS)


def test_the_released_script_counts_its_own_cost_and_learns_from_unrounded_samples(tiny_world, monkeypatch):
    """About 28,000 plain evaluations a step of ten labels with K = 400, of which 80 are θ*'s."""
    run = Run("reference-epapa", (1,), overrides=(("script", True), ("timesteps", 8), ("draw_steps", STEPS)))
    system, given = build(tiny_world, run), []
    assert system.recipe.ranks == 8 and not system.recipe.clip
    monkeypatch.setattr(system.trainer, "interaction_step", lambda labels, random: given.append(labels))
    shown = 1.5 * torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    system.show(list(range(10)))
    system.learn(shown, grades(10), 0)
    assert torch.equal(given[0].samples, shown)
    assert system.cost.total == 10 * (3 * 600 + 8 + 1000)


def test_a_share_of_what_is_shown_comes_from_the_backbone(tiny_world):
    run = replace(tiny_run("exploring"), overrides=(("exploration", 0.5), ("draw_steps", STEPS)))
    system, seeds = build(tiny_world, run), list(range(LABELS))
    weights = 0.1 * torch.randn(system.adapter.weights.shape, generator=torch.Generator().manual_seed(0))
    system.adapter = replace(system.adapter, weights=weights)
    shown, adapted, unadapted = system.show(seeds), system.draw(seeds), system.sample(seeds, None)
    unlike = sorted(explored(LABELS, 0.5))
    like = sorted(set(seeds) - set(unlike))
    assert len(unlike) == LABELS // 2
    torch.testing.assert_close(shown[unlike], unadapted[unlike], atol=1e-5, rtol=0)
    torch.testing.assert_close(shown[like], adapted[like], atol=1e-5, rtol=0)
    # A model of random weights may make the same of one seed with and without an adapter, not of all.
    assert (adapted - unadapted)[unlike].abs().max() > 0.1 < (adapted - unadapted)[like].abs().max()


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


def test_the_page_says_what_was_not_run(tmp_path, monkeypatch):
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
    assert "| coverage ≥ 0.85 | 0.900 | runs are missing |" in page
    assert "not measured" in page
    assert "- main: 1 of 24 runs" in page
    monkeypatch.setitem(EXPERIMENTS, "main", lambda: [run])
    list(write_report(raw, tmp_path / "alignment"))
    page = (tmp_path / "alignment.md").read_text()
    assert "| coverage ≥ 0.85 | 0.900 | yes |" in page
    assert "| success at step 30 ≥ 0.95 | 0.900 | **no** |" in page
