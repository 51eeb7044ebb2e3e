"""The experiments, each a list of runs.

The whole is made to fit a few hours of two shared cores. Evaluation would be most of it, so that systems are measured
at few interaction steps; expensive systems get fewer seeds, tastes and steps, as each experiment says. None is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.alignment.runs import Run

FASHION = ((5, 7, 9), (1, 2, 6), (0, 3, 8), (4, 8), (1, 3, 5, 7))
DIGITS = ((1, 4, 7, 9), (0, 3, 8), (2, 5))
SEEDS = (0, 1, 2)
RIVALS = ("d3po", "reward-model", "diffusion-kto", "guidance")
FEW = (("fashion_mnist", FASHION[0]), ("fashion_mnist", FASHION[1]), ("mnist", DIGITS[0]))
"""The tastes of what is expensive: an easy and a hard one of Fashion-MNIST and one of MNIST."""
EVERY = (*(("fashion_mnist", taste) for taste in FASHION), *(("mnist", taste) for taste in DIGITS))
POINTS = (0, 4, 10, 15, 20)
"""Evaluation points of the systems' comparison; the last step is one always."""
SPARSE = (0, 10, 20)
SHORT = (5, 10)
"""Interaction steps evaluated in experiments on our own update, which have ten or fifteen steps."""
THINNED = 20
"""Timesteps per sample with which the thinned reference recipe estimates its sum."""


def main() -> list[Run]:
    """Ours on every taste with three seeds; three of the first seed's runs are measured most finely."""
    runs = [Run("ours", taste, seed, dataset, evaluated=POINTS) for seed, (dataset, taste) in product(SEEDS, EVERY)]
    fine = [Run("ours", taste) for taste in FASHION[:3]]
    coarse = [replace(run, evaluated=SPARSE, final_samples=150) for run in runs if run.seed]
    return fine + [run for run in runs if not run.seed and (run.dataset, run.taste) not in EVERY[:3]] + coarse


def rivals() -> list[Run]:
    """Each rival with one seed and ten interaction steps: guidance, which is cheap, on every taste, others on FEW."""
    return [
        Run(system, taste, dataset=dataset, rounds=10, evaluated=(0, 4), samples=60, final_samples=150)
        for system in RIVALS
        for dataset, taste in (EVERY if system == "guidance" else FEW)
    ]


def tuning() -> list[Run]:
    """Sweeps each rival's learning rate or scale: {5, 7, 9}, eight interaction steps, one seed, 100 final samples."""
    swept = [("guidance", "scale", value) for value in (8.0, 16.0, 32.0)]
    swept += [(system, "learning_rate", value) for value, system in product((4e-3, 1.6e-2, 1e-3, 8e-3), RIVALS[:3])]
    swept += [(system, "learning_rate", 3.2e-2) for system in RIVALS[1:3]]  # of which D3PO bears not even half
    return [
        Run(system, FASHION[0], rounds=8, evaluated=(0,), final_samples=100, overrides=((field, value),))
        for system, field, value in swept
    ]


def base() -> list[Run]:
    """The backbone alone: one evaluation, enough samples to filter by every taste."""
    return [Run("base", taste, dataset=dataset, rounds=0, final_samples=1500) for dataset, taste in EVERY]


def published() -> list[Run]:
    """The reference recipe as published, in full, on {5, 7, 9} with one seed: few interaction steps, which take
    minutes each."""
    return [
        Run("reference-epapa", FASHION[0], rounds=3, evaluated=(0, 1, 2), samples=60, final_samples=100),
        Run("reference-papa", FASHION[0], rounds=2, evaluated=(0, 1), samples=60, final_samples=100),
    ]


def paper_size() -> list[Run]:
    """EPAPA's on a U-Net of the paper's own size (channels 32, 64, 128 and 256, two layers a block), which wants
    pictures framed to 32 pixels, a backbone and hours."""
    base = Run("base", FASHION[0], dataset=FRAMED, rounds=0, final_samples=300)
    return [base, replace(published()[0], dataset=FRAMED)]


FRAMED = "fashion_mnist_32"


def reference() -> list[Run]:
    """The recipe with its timestep sum estimated, at each learning rate of the sweep (1e-5 is the published one).

    The sweep is on {5, 7, 9} over 10 interaction steps; EPAPA's best rate (TUNED) and the next lower one run 30 on FEW,
    with one seed.
    """
    sweep = [
        _thinned(system, FASHION[0], rate, rounds=10)
        for system, rate in product(("reference-epapa", "reference-papa"), LEARNING_RATES)
    ]
    return sweep + [
        _thinned("reference-epapa", taste, rate, dataset=dataset) for rate, (dataset, taste) in product(LONGEST, FEW)
    ]


def script() -> list[Run]:
    """The released script as it behaves (papa.reference), its sum thinned to three timesteps a process: three rates on
    FEW with three seeds."""
    given = (("timesteps", 24), ("script", True))
    return [
        Run("reference-epapa", taste, seed, dataset, 30, samples=60, final_samples=150, evaluated=POINTS,
            overrides=(("learning_rate", rate), *given))
        for seed, rate, (dataset, taste) in product(SEEDS, (1e-5, 3e-6, 3e-5), FEW)
    ]  # fmt: skip


LEARNING_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
TUNED = 1e-5
LONGEST = (TUNED, 3e-6)


def ablations() -> list[Run]:
    """Ablations: each term of the loss left out, and each term alone."""
    return _variants({name: dict(change) for name, change in ABLATIONS.items()})


def keeping() -> list[Run]:
    """Settings that keep both tastes of a user alive, on {4, 8}: one class resembles others, the other does not."""
    return _variants({name: dict(change) for name, change in KEEPING.items()}, FASHION[3:4])


BLIND: tuple[tuple[str, Any], ...] = (("trust", 0.0),)
"""Takes all labels at their word."""

Changes = dict[str, tuple[tuple[str, Any], ...]]
"""Overrides by what they are called."""
ABLATIONS: Changes = {
    "ours: bounded L^p and L^PAE": (),
    "with L^QPDE": (("eta", 1.0),),
    "without L^PAE (L^p only)": (("enhancer", 0.0),),
    "L^p and L^QPDE, without L^PAE": (("enhancer", 0.0), ("eta", 1.0)),
    "L^np only": (("use_likes", False),),
    "unbounded L^p": (("like_beta", 0.0),),
}
KEEPING: Changes = {
    "ours": (),
    "every label trusted": BLIND,
    "all liked samples weigh alike": (("neighbours", 0),),
    "no pool": (("pool_share", 0.0),),
    "the last iterate served": (("averaging", 0.0),),
}


def lora() -> list[Run]:
    """Varies which layers carry LoRA and whether A learns, on the hardest taste; rates follow gradient sizes."""
    return _variants(
        {
            "default": {},
            "B alone, all convolutions": {"lora_widest": False},
            "A and B": dict(BOTH),
            "rank 8": {"lora_rank": 8, "lora_alpha": 8.0},
        },
        tastes=FASHION[2:3],
        rounds=10,
    )


BOTH: tuple[tuple[str, Any], ...] = (("lora_frozen_a", False), ("learning_rate", 4e-3))
"""A learns too, at a fifth of the rate."""


def both_learn() -> list[Run]:
    """A that learns too, beside the default, on every taste with one seed."""
    without = [run for run in main() if not run.seed]
    return without + [
        Run("ours", taste, 0, dataset, evaluated=SPARSE, final_samples=150, overrides=BOTH) for dataset, taste in EVERY
    ]


def update_size() -> list[Run]:
    """Varies the size of an update on the hardest taste: Adam steps, rows, learning rate and weights of the loss."""
    return _variants({"default": {}, **{str(change): change for change in SIZES}}, FASHION[2:3], 10)


SIZES: tuple[dict[str, Any], ...] = (
    {"steps": 10},
    {"like_rows": 16, "dislike_rows": 16},
    {"enhancer": 2.0},
    {"like_rows": 16, "dislike_rows": 8, "steps": 4, "learning_rate": 3e-2},
    {"like_beta": 200.0, "enhancer_beta": 200.0},
)


def k_sweep() -> list[Run]:
    """The timestep from which on the adapter works and learns, on the hardest taste; 0 is PAPA."""
    changes = {f"K = {k}": {"adapt_from": k} if k != 400 else {} for k in K_SWEEP}
    return _variants(changes, FASHION[2:3], 10)


K_SWEEP = (0, 100, 250, 400, 600, 800)


def noise() -> list[Run]:
    """10, 20 and 30 % of the labels flipped, for ours and the reward model; ours that trusts every label at 20 %."""
    runs = _variants({"": {}})
    believed = [replace(run, flipped=0.2, overrides=BLIND) for run in runs]
    return [
        replace(run, flipped=share, system=system)
        for share, system, run in product((0.2, 0.1, 0.3), ("ours", "reward-model"), runs)
    ] + believed


def per_step() -> list[Run]:
    """5, 10 and 20 labels per interaction step, 150 labels in all, on the hardest taste."""
    short = _variants({"": {}}, FASHION[2:3])
    return [
        replace(run, labels=labels, rounds=-(-150 // labels), evaluated=tuple(50 * i // labels for i in range(3)))
        for labels, run in product((5, 20), short)
    ] + short


def drift() -> list[Run]:
    """The taste changes after 15 of 30 interaction steps; one run where that is not looked for."""
    pairs = (((5, 7, 9), (0, 3, 8)), ((1, 2, 6), (5, 7, 9)))
    points = (0, 10, 15, 17, 19, 21, 23, 25, 27)
    runs = [
        Run("ours", before, later_taste=after, evaluated=points, samples=60, final_samples=150)
        for before, after in pairs
    ]
    return [*runs, replace(runs[0], overrides=(("change_share", 0.0),))]


def active() -> list[Run]:
    """Active selection: ten of 40 candidates, and the same number of labels without."""
    return [replace(run, candidates=40) for run in _variants({"": {}})] + _variants({"": {}})


def exploration() -> list[Run]:
    """A share of what is shown drawn from the backbone: three seeds on {4, 8}, which loses a class without, one on two
    other tastes that are learnt slowly."""
    tastes: list[tuple[str, tuple[int, ...], int]] = [("fashion_mnist", FASHION[3], seed) for seed in SEEDS]
    tastes += [("fashion_mnist", FASHION[2], 0), ("mnist", DIGITS[2], 0)]
    without = [run for run in main() if (run.dataset, run.taste, run.seed) in tastes]
    return without + [
        Run("exploring", taste, seed, dataset, evaluated=SPARSE, final_samples=150, overrides=(("exploration", share),))
        for share, (dataset, taste, seed) in product(EXPLORED, tastes)
    ]


EXPLORED = (0.2, 0.5)


def jpeg() -> list[Run]:
    """Graded feedback by the compressed size of a picture, small liked and large liked; one seed."""
    return [
        Run("ours", score=score, rounds=20, evaluated=(0, *SHORT), samples=60, final_samples=150)
        for score in ("jpeg", "jpeg-")
    ]


def latent() -> list[Run]:
    """The text backbone, always asked for the generic word, behind the promotion gate: three tastes and two seeds; and
    one of them with the bounds' β of pixels."""
    runs = _gated("fashion_mnist_text", 12)
    pixels = (("like_beta", 500.0), ("enhancer_beta", 500.0))
    base = [Run("base", taste, dataset="fashion_mnist_text", rounds=0, final_samples=600) for taste in LATENT_TASTES]
    return [*base, *runs, replace(runs[0], overrides=pixels)]


def flow() -> list[Run]:
    """The same on the text backbone of rectified flow, ten rounds."""
    return _gated("fashion_mnist_flow", 10)


def _gated(dataset: str, rounds: int) -> list[Run]:
    return [
        Run("gated", taste, seed, dataset, rounds, evaluated=LATENT_POINTS, samples=60, final_samples=150)
        for seed, taste in product((0, 1), LATENT_TASTES)
    ]


LATENT_TASTES = ((7, 9), (5, 7, 9), (1, 3))
LATENT_POINTS = (0, 2, 4, 6, 8, 10)


def cifar10() -> list[Run]:
    """The same on 32×32 RGB: vehicles, and three animals. It wants a backbone, which wants a GPU."""
    tastes = ((0, 1, 8, 9), (3, 5, 7))
    ours = [Run("ours", taste, seed, "cifar10", evaluated=POINTS) for seed, taste in product(SEEDS, tastes)]
    return [Run("base", taste, dataset="cifar10", rounds=0, final_samples=1500) for taste in tastes] + ours


EXPERIMENTS: dict[str, Callable[[], list[Run]]] = {
    "base": base, "tuning": tuning, "main": main, "rivals": rivals, "reference": reference, "published": published,
    "script": script,
    "ablations": ablations, "keeping": keeping, "k-sweep": k_sweep, "update-size": update_size, "noise": noise,
    "drift": drift,
    "per-step": per_step, "active": active, "exploration": exploration, "jpeg": jpeg, "lora": lora,
    "both-learn": both_learn,
    "latent": latent, "flow": flow, "paper-size": paper_size, "cifar10": cifar10,
}  # fmt: skip
OF_THE_PAGE = tuple(name for name in EXPERIMENTS if name not in ("flow", "paper-size", "cifar10"))
"""The experiments of the page; the others have pages of their own, or need a backbone that is not in the package."""


def ordered(names: Iterable[str]) -> list[Run]:
    """The runs of these experiments, each once: the first seed before the second, and the first run of every experiment
    before the second of any, so that an interrupted grid says something about everything."""
    ranked = [(run.seed, index, run) for name in names for index, run in enumerate(EXPERIMENTS[name]())]
    return list(dict.fromkeys(run for _, _, run in sorted(ranked, key=lambda each: each[:2])))


def _thinned(system: str, taste: tuple[int, ...], rate: float, dataset: str = "fashion_mnist", rounds: int = 30) -> Run:
    given = (("learning_rate", rate), ("timesteps", THINNED))
    return Run(system, taste, 0, dataset, rounds, samples=60, final_samples=150, evaluated=POINTS, overrides=given)


def _variants(
    changes: dict[str, dict[str, Any]], tastes: tuple[tuple[int, ...], ...] = FASHION[1:3], rounds: int = 15
) -> list[Run]:
    """The two hardest tastes, one seed, 15 interaction steps, unless told otherwise."""
    points = tuple(point for point in SHORT if point < rounds)
    return [
        Run("ours", taste, rounds=rounds, evaluated=points, final_samples=200, overrides=tuple(change.items()))
        for change, taste in product(changes.values(), tastes)
    ]
