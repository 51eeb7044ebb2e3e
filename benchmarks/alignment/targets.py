"""The goals that were set, each with its figure and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from benchmarks.alignment.aggregate import Loaded, Reached, Records, distinct, reached
from benchmarks.alignment.grid import EXPERIMENTS, OF_THE_PAGE, TUNED
from benchmarks.alignment.runs import Run

LONG = 30
"""Interaction steps of the runs that goals compare."""
PUBLISHED_COST = 10 * (600 * 4 + 1000)
"""EPAPA as published, one interaction step: 10 samples × (600 timesteps × (3 + 1) + 1000 sampling steps)."""


def targets(loaded: dict[str, Loaded]) -> Iterator[str]:
    """Yields table rows: "not measured" where there are no runs, and no verdict before an experiment is complete.

    Ours is compared with the reference on the tastes that the reference was run on.
    """
    partial = {name for name, runs in loaded.items() if len(runs) < len(dict.fromkeys(EXPERIMENTS[name]()))}

    def line(goal: str, found: tuple[str, bool] | None, experiments: str) -> str:
        return _line(goal, found, experiments, not partial & set(experiments.split() or OF_THE_PAGE))

    yield "| goal | figure | met | command |\n| --- | --- | --- | --- |"
    ours = reached(list(loaded["main"].values())) if loaded["main"] else None
    tuned, beside = _tuned(loaded)
    yield line("success at steps 10, 20, 30 at least the tuned reference's", _ahead(beside, tuned), "main reference")
    yield line("success at step 30 ≥ 0.95", _compare(ours.at.get(30) if ours else None, 0.95), "main")
    slow = f" ({ours.reached_90} of {ours.runs} runs reach it)" if ours else ""
    labels = ours.labels_to_90 if ours and ours.reached_90 == ours.runs else None
    shown = (
        f"{ours.labels_to_90:.0f}{slow}" if ours and ours.labels_to_90 else "–",
        labels is not None and labels <= 100,
    )
    yield line("labels to 0.9 ≤ 100, in every run", shown if ours else None, "main")
    yield line("coverage ≥ 0.85", _compare(ours.coverage if ours else None, 0.85), "main")
    yield line("coverage at least the reference's", _coverage(beside, tuned), "main reference")
    yield line("Fréchet distance ≤ 1.2 × that of filtered base samples", _frechet(loaded), "main base")
    cost = ours.cost_per_step if ours else None
    ratio = (f"1/{PUBLISHED_COST / cost:.0f}", PUBLISHED_COST / cost >= 20) if cost else None
    yield line("cost per interaction step ≤ 1/20 of the reference's as published", ratio, "main")
    yield line("cost to 0.9 ≤ 1/50 of the reference's", _cost_to_90(beside, tuned), "main reference")
    yield line("at 20 % flipped labels ≥ 0.1 ahead of the reward model", _noise(loaded["noise"]), "noise")
    yield line("0.9 again within 100 labels after drift", _drift(loaded["drift"]), "drift")
    every = [
        records
        for run, records in distinct(loaded).items()
        if run.system == "ours" and not run.score and not run.overrides
    ]
    gone = reached(every).diverged if every else 0
    yield line("no run of ours diverges", (f"{gone} of {len(every)}", gone == 0) if every else None, "")
    yield ""


def _line(goal: str, found: tuple[str, bool] | None, experiments: str, complete: bool) -> str:
    figure, met = found or ("not measured", False)
    verdict = "–" if found is None else "runs are missing" if not complete else "yes" if met else "**no**"
    command = " ".join(["papa bench alignment", *experiments.split()])
    return f"| {goal} | {figure} | {verdict} | `{command}` |"


def _compare(value: float | None, goal: float) -> tuple[str, bool] | None:
    return None if value is None else (f"{value:.3f}", value >= goal)


def _tuned(loaded: dict[str, Loaded]) -> tuple[Reached | None, Reached | None]:
    """The reference at its best rate, and ours on the tastes that it was run on."""
    # The sweep's runs are shorter than ours: what they did not reach by then says nothing.
    runs = {
        run: records
        for run, records in loaded["reference"].items()
        if dict(run.overrides)["learning_rate"] == TUNED and run.rounds == LONG
    }
    tastes = {(run.dataset, run.taste) for run in runs}
    beside = [records for run, records in loaded["main"].items() if (run.dataset, run.taste) in tastes]
    return reached(list(runs.values())) if runs else None, reached(beside) if beside else None


def _ahead(ours: Reached | None, tuned: Reached | None) -> tuple[str, bool] | None:
    if ours is None or tuned is None:
        return None
    pairs = [(step, ours.at[step], tuned.at[step]) for step in (10, 20, 30) if step in ours.at and step in tuned.at]
    text = ", ".join(f"{mine:.2f} / {theirs:.2f}" for _, mine, theirs in pairs)
    return (text, all(mine >= theirs for _, mine, theirs in pairs)) if pairs else None


def _coverage(ours: Reached | None, tuned: Reached | None) -> tuple[str, bool] | None:
    if ours is None or tuned is None or ours.coverage is None or tuned.coverage is None:
        return None
    return (f"{ours.coverage:.2f} / {tuned.coverage:.2f}", ours.coverage >= tuned.coverage)


def _frechet(loaded: dict[str, Loaded]) -> tuple[str, bool] | None:
    filtered = {(r.dataset, r.taste): x[-1].get("frechet_filtered") for r, x in loaded["base"].items()}
    ratios = [
        records[-1]["frechet"] / filtered[run.dataset, run.taste]
        for run, records in loaded["main"].items()
        if filtered.get((run.dataset, run.taste)) and records[-1].get("frechet")
    ]
    return (f"{fmean(ratios):.2f} ×", fmean(ratios) <= 1.2) if ratios else None


def _cost_to_90(ours: Reached | None, tuned: Reached | None) -> tuple[str, bool] | None:
    if ours is None or tuned is None or not ours.cost_to_90:
        return None
    if not tuned.cost_to_90:
        return (f"{ours.cost_to_90:,.0f} against never", True)
    ratio = tuned.cost_to_90 / ours.cost_to_90
    return (f"1/{ratio:.0f}", ratio >= 50)


def _noise(runs: Loaded) -> tuple[str, bool] | None:
    def last(system: str) -> list[float]:
        return [
            x[-1]["success"] for r, x in runs.items() if r.system == system and r.flipped == 0.2 and not r.overrides
        ]

    ours, theirs = last("ours"), last("reward-model")
    if not ours or not theirs:
        return None
    return (f"{fmean(ours):.2f} / {fmean(theirs):.2f}", fmean(ours) >= fmean(theirs) + 0.1)


def _drift(runs: Loaded) -> tuple[str, bool] | None:
    if all(run.overrides for run in runs):
        return None
    needed = [_again(run, records) for run, records in runs.items() if not run.overrides]
    found = [labels for labels in needed if labels is not None]
    text = f"{fmean(found):.0f} labels" if found else "never"
    met = len(found) == len(needed) and fmean(found) <= 100
    return (f"{text} ({len(found)} of {len(needed)} runs)", met)


def _again(run: Run, records: Records) -> int | None:
    """Labels after the change until 0.9."""
    half = run.rounds // 2
    later = [r for r in records if r["step"] > half and r.get("success") is not None and r["success"] >= 0.9]
    return int(later[0]["labels"]) - half * run.labels if later else None
