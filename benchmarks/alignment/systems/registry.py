"""The systems by name, each with its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.alignment.runs import Run, Sampling, overridden
from benchmarks.alignment.systems.base import Base, System
from benchmarks.alignment.systems.d3po import D3po, D3poConfig
from benchmarks.alignment.systems.exploring import Exploring, ExploringConfig
from benchmarks.alignment.systems.gated import Gated
from benchmarks.alignment.systems.guidance import ClassifierGuidance, GuidanceConfig
from benchmarks.alignment.systems.kto import DiffusionKto, KtoConfig
from benchmarks.alignment.systems.ours import Ours
from benchmarks.alignment.systems.reference import Reference, ReferenceConfig
from benchmarks.alignment.systems.reward_model import RewardConfig, RewardModel
from benchmarks.alignment.world import PROMPTS, World
from papa.config import ATTENTION_LORA, DEFAULT_LORA, DEFAULT_UPDATE, LATENT_UPDATE
from papa.denoiser import Denoiser
from papa.lora import LoraConfig

Made = Callable[[World, Run, Sampling, LoraConfig, Any], System]


def _base(world: World, run: Run, sampling: Sampling, lora: LoraConfig, config: Any) -> System:
    return Base(world.denoiser(lora), sampling, run.seed)


def _reference(world: World, run: Run, sampling: Sampling, lora: LoraConfig, config: Any) -> System:
    return Reference(world.denoiser(lora), world.denoiser(lora), sampling, run.seed, config)


def _adapted(system: Callable[[Denoiser, Sampling, int, Any], System]) -> Made:
    def make(world: World, run: Run, sampling: Sampling, lora: LoraConfig, config: Any) -> System:
        return system(world.denoiser(lora), sampling, run.seed, config)

    return make


@dataclass(frozen=True)
class Nothing:
    """The configuration of a system without any."""


SYSTEMS: dict[str, tuple[Made, Any]] = {
    "base": (_base, Nothing()),
    "reference-papa": (_reference, ReferenceConfig(adapt_from=0)),
    "reference-epapa": (_reference, ReferenceConfig(adapt_from=400)),
    "d3po": (_adapted(D3po), D3poConfig()),
    "reward-model": (_adapted(RewardModel), RewardConfig()),
    "diffusion-kto": (_adapted(DiffusionKto), KtoConfig()),
    "guidance": (_adapted(ClassifierGuidance), GuidanceConfig()),
    "ours": (_adapted(Ours), DEFAULT_UPDATE),
    "gated": (_adapted(Gated), DEFAULT_UPDATE),
    "exploring": (_adapted(Exploring), ExploringConfig()),
}
"""The constructor and the default configuration of each system."""
ON_LATENTS = ("base", "ours", "gated")

_PREFIXES = ("draw_", "lora_", "")


def configuration(run: Run) -> tuple[Sampling, LoraConfig, Any]:
    """Applies a run's overrides to the defaults: "draw_" changes how samples are drawn, "lora_" which layers adapt.

    Raises TypeError for an override that nothing knows.
    """
    parts: dict[str, list[tuple[str, Any]]] = {prefix: [] for prefix in _PREFIXES}
    for name, value in run.overrides:
        prefix = next(each for each in _PREFIXES if name.startswith(each))
        parts[prefix].append((name.removeprefix(prefix), value))
    default, lora = SYSTEMS[run.system][1], DEFAULT_LORA
    if run.dataset in PROMPTS:
        default, lora = LATENT_UPDATE if default is DEFAULT_UPDATE else default, ATTENTION_LORA
    return (
        overridden(Sampling(), tuple(parts["draw_"])),
        overridden(lora, tuple(parts["lora_"])),
        overridden(default, tuple(parts[""])),
    )


def build(world: World, run: Run) -> System:
    """Builds the system of a run. Raises ValueError for a pixel-only system on a backbone of latents."""
    if world.prompt and run.system not in ON_LATENTS:
        raise ValueError(f"{run.system} works on pixels, {run.dataset} on latents")
    system = SYSTEMS[run.system][0](world, run, *configuration(run))
    system.prompt = world.prompt
    return system
