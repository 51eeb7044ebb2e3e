"""Which runs each experiment is made of.

Expensive systems get fewer seeds, tastes and evaluation points, as each experiment says; none is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.alignment.runs import Run

FASHION = ((5, 7, 9), (0, 3, 8), (1, 2, 6), (4, 8), (1, 3, 5, 7))
DIGITS = ((1, 4, 7, 9), (0, 3, 8), (2, 5))
SEEDS = (0, 1, 2)
RIVALS = ("d3po", "reward-model", "diffusion-kto", "guidance")
SPARSE = (0, 2, 4, 6, 8, 10, 15, 20, 30)
"""Evaluation points of everything but the main comparison."""
SHORT = (0, 2, 4, 6, 8, 10, 12, 15, 20)
THINNED = 60
"""Timesteps per sample with which the thinned reference recipe estimates its sum."""


def main() -> list[Run]:
    """Ours on every taste with three seeds."""
    return _fashion("ours") + _digits("ours")


def rivals() -> list[Run]:
    """Each rival on every taste with one seed, and on the first taste of each data set with three."""
    runs = []
    for system in RIVALS:
        runs += [each for each in _fashion(system) + _digits(system) if each.seed == 0 or each.taste in FIRST]
    return [replace(run, evaluated=SPARSE) for run in runs]


FIRST = (FASHION[0], DIGITS[0])


def base() -> list[Run]:
    """The backbone alone: one evaluation, enough samples to filter by every taste."""
    return [
        Run("base", taste, dataset=dataset, rounds=0, final_samples=1500)
        for dataset, tastes in (("fashion_mnist", FASHION), ("mnist", DIGITS))
        for taste in tastes
    ]


def published() -> list[Run]:
    """The reference recipe as published, in full, on {5, 7, 9} with one seed and ten interaction steps."""
    return [
        Run(system, FASHION[0], rounds=10, evaluated=(0, 1, 2, 3, 4, 6, 8), final_samples=100)
        for system in ("reference-epapa", "reference-papa")
    ]


def reference() -> list[Run]:
    """The recipe with its timestep sum estimated, at each learning rate of the sweep (the last is the published one).

    The sweep is on {5, 7, 9}; its best rate (TUNED) runs with EPAPA on every taste and with PAPA on two, with one seed.
    """
    sweep = [
        _thinned(system, taste, rate)
        for system, taste, rate in product(("reference-epapa", "reference-papa"), FASHION[:1], LEARNING_RATES)
    ]
    tuned = [_thinned("reference-epapa", taste, TUNED) for taste in FASHION]
    tuned += [replace(_thinned("reference-epapa", taste, TUNED), dataset="mnist") for taste in DIGITS]
    tuned += [_thinned("reference-papa", taste, TUNED) for taste in FASHION[:2]]
    return sweep + tuned


LEARNING_RATES = (1e-6, 3e-6, 1e-5)
TUNED = 3e-6


def ablations() -> list[Run]:
    """Without each term, with one term alone, and PAPA (K = 0) against EPAPA, 20 interaction steps."""
    return _variants(
        {
            "ours": {},
            "without L^PAE": {"enhancer": 0.0},
            "with L^QPDE": {"eta": 1.0},
            "L^np only": {"use_likes": False},
            "unbounded L^p": {"like_beta": 0.0},
        }
    )


def lora() -> list[Run]:
    """Where LoRA sits and what of it learns; rates as far apart as the sizes of the gradients want."""
    return _variants(
        {
            "default": {},
            "B alone, all convolutions": {"lora_widest": False},
            "A and B": {"lora_frozen_a": False, "learning_rate": 4e-3},
            "A and B, all convolutions": {"lora_frozen_a": False, "lora_widest": False, "learning_rate": 4e-3},
            "rank 8": {"lora_rank": 8, "lora_alpha": 8.0},
        }
    )


def k_sweep() -> list[Run]:
    """The timestep from which on the adapter works and learns; 0 is PAPA."""
    return _variants({f"K = {k}": {"adapt_from": k} for k in K_SWEEP})


K_SWEEP = (0, 200, 400, 600, 800)


def noise() -> list[Run]:
    """10, 20 and 30 % of the labels flipped, for ours and the reward model."""
    return [
        replace(run, flipped=share, system=system)
        for system, share, run in product(("ours", "reward-model"), (0.1, 0.2, 0.3), _variants({"": {}}))
    ]


def per_step() -> list[Run]:
    """5, 10 and 20 labels per interaction step, 200 labels in all."""
    short = _variants({"": {}})
    return [
        replace(run, labels=labels, rounds=200 // labels, evaluated=tuple(40 * i // labels for i in range(6)))
        for labels, run in product((5, 20), short)
    ] + short


def drift() -> list[Run]:
    """The taste changes after 15 of 30 interaction steps."""
    pairs = (((5, 7, 9), (0, 3, 8)), ((1, 2, 6), (5, 7, 9)))
    points = (0, 5, 10, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 30)
    return [
        Run("ours", before, seed=seed, later_taste=after, evaluated=points)
        for (before, after), seed in product(pairs, (0, 1))
    ]


def active() -> list[Run]:
    """Active selection: ten of 40 candidates, and the same number of labels without."""
    return [replace(run, candidates=40) for run in _variants({"": {}})] + _variants({"": {}})


def jpeg() -> list[Run]:
    """Graded feedback by the compressed size of a picture, small liked and large liked."""
    systems = ("ours", "base")
    return [
        Run(system, score=score, seed=seed, rounds=20 if system == "ours" else 0, evaluated=SHORT)
        for system, score, seed in product(systems, ("jpeg", "jpeg-"), (0, 1, 2))
        if system == "ours" or seed == 0
    ]


EXPERIMENTS: dict[str, Callable[[], list[Run]]] = {
    "base": base, "main": main, "rivals": rivals, "reference": reference, "published": published,
    "ablations": ablations, "lora": lora, "k-sweep": k_sweep, "noise": noise, "per-step": per_step, "drift": drift,
    "active": active, "jpeg": jpeg,
}  # fmt: skip


def _fashion(system: str) -> list[Run]:
    return [Run(system, taste, seed) for seed, taste in product(SEEDS, FASHION)]


def _digits(system: str) -> list[Run]:
    return [Run(system, taste, seed, dataset="mnist") for seed, taste in product(SEEDS, DIGITS)]


def _thinned(system: str, taste: tuple[int, ...], rate: float) -> Run:
    given = (("learning_rate", rate), ("timesteps", THINNED))
    return Run(system, taste, overrides=given, evaluated=(0, 2, 5, 10, 15, 20), samples=60)


def _variants(changes: dict[str, dict[str, Any]]) -> list[Run]:
    """Two tastes, two seeds, 20 interaction steps."""
    return [
        Run("ours", taste, seed, rounds=20, evaluated=SHORT, overrides=tuple(change.items()))
        for change, taste, seed in product(changes.values(), FASHION[:2], (0, 1))
    ]
